# For a CPU or one GPU and a folder of your own: tools/train.py THIS --images DIR
_base_ = "../_base_/small_folder.py"

model = dict(
    type="DIM",
    backbone=dict(type="ResNet", depth=18, out_indices=(2, 3)),
    head=dict(type="GlobalHead", hidden_channels=(512,), out_channels=64, norm=True),
    embedding=dict(type="ShortcutHead", hidden_channels=(512,), out_channels=512),
    estimator="infonce",  # asks more of a small batch than jsd
)
train_dataloader = dict(dataset=dict(transform=dict(size=96, views=["moco_v2"])))
