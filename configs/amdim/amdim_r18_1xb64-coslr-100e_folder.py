# For a CPU or one GPU and a folder of your own: tools/train.py THIS --images DIR
_base_ = "../_base_/small_folder.py"

model = dict(
    type="AMDIM",
    # 7x7 cells from C3, 5x5 from C4: at 96 pixels C5 has 3x3.
    backbone=dict(type="ResNet", depth=18, out_indices=(1, 2, 3)),
    embedding=dict(type="ShortcutHead", hidden_channels=(512,), out_channels=512),
)
train_dataloader = dict(
    dataset=dict(transform=dict(size=96, views=["amdim", "amdim"], shared_flip=True)),
)
