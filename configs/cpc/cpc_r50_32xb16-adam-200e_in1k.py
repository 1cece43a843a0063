# CPC v2's task on a ResNet-50. As published: patches of 80 pixels augmented one by one, three rows
# ahead, four directions; Adam at 2e-4 for 32 x 16 images is v1's. Ours: a view of 272 pixels every
# 32, which makes a grid of 7; jitter as the patches' augmentation; GroupNorm; 200 epochs.
# v1's task: model.offsets=(2, 3, 4, 5), model.directions=1 and a view with size=256, patch=64,
# jitter_prob=0.
_base_ = [
    "../_base_/datasets/imagenet_mocov2.py",
    "../_base_/default_runtime.py",
]

model = dict(
    type="CPC",
    backbone=dict(type="ResNet", depth=50, norm="gn"),
    context=dict(type="MaskedContext", width=256),
    grid=7,
    offsets=(3,),
    directions=4,
    dim=64,
    scale=0.1,
)
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        transform=dict(
            views=[dict(preset="moco_v2", blur_prob=0.0, size=272, patch=80, stride=32)],
        ),
    ),
)
optim_wrapper = dict(optimizer=dict(type="Adam", lr=2e-4))
train_cfg = dict(max_epochs=200)
