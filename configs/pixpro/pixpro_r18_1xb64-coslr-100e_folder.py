_base_ = "../_base_/small_folder_warmup.py"

# A short training has few steps: the teacher follows faster.
model = dict(
    type="PixPro",
    backbone=dict(type="ResNet", depth=18),
    head=dict(type="DenseHead", hidden_channels=(1024,), out_channels=256, norm=True),
    momentum=0.98,
)
train_dataloader = dict(dataset=dict(transform=dict(views=["byol_1", "byol_2"])))
