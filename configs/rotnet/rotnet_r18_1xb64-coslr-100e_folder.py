_base_ = "../_base_/small_folder.py"

model = dict(
    type="RotNet",
    backbone=dict(type="ResNet", depth=18),
    head=dict(type="GlobalHead", hidden_channels=(), out_channels=4),
)
train_dataloader = dict(dataset=dict(transform=dict(views=["crop_flip"])))
