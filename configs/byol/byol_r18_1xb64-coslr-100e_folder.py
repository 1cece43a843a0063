_base_ = "../_base_/small_folder_warmup.py"

# A short training has few steps: the teacher follows faster.
model = dict(
    type="BYOL",
    backbone=dict(type="ResNet", depth=18),
    head=dict(type="GlobalHead", hidden_channels=(1024,), out_channels=256, norm=True),
    predictor=dict(type="GlobalHead", hidden_channels=(1024,), out_channels=256, norm=True),
    momentum=0.99,
    end_momentum=1.0,
)
train_dataloader = dict(dataset=dict(transform=dict(views=["byol_1", "byol_2"])))
