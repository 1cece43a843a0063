# For a CPU or one GPU and a folder of your own: tools/train.py THIS --images DIR
_base_ = "../_base_/small_folder.py"

model = dict(
    type="CPC",
    backbone=dict(type="ResNet", depth=18, norm="gn"),
    context=dict(type="MaskedContext", width=128),
    grid=5,  # of (size - patch) / stride + 1 patches a side
    offsets=(2, 3),  # the next row overlaps
    directions=1,
)
train_dataloader = dict(
    dataset=dict(
        transform=dict(
            views=[dict(preset="moco_v2", blur_prob=0.0, size=96, patch=32, stride=16)],
        ),
    ),
)
