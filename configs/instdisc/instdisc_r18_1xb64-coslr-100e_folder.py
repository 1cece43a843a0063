_base_ = "../_base_/small_folder.py"

model = dict(
    type="InstDisc",
    backbone=dict(type="ResNet", depth=18),
    head=dict(type="GlobalHead", hidden_channels=(), out_channels=128),
    objective="full",  # the bank is small
)
train_dataloader = dict(dataset=dict(transform=dict(views=["moco_v1"])))
