# AMDIM's task and views on a network that the paper does not have. As published: the terms, the
# views of 128 pixels with one flip, Adam at 2e-4 after 500 steps of warm-up. Ours: ResNet-50 with 7x7
# cells from C4 and 5x5 from C5, heads of 1024 channels, 8 x 128 images, 150 epochs.
_base_ = [
    "../_base_/datasets/imagenet_mocov2.py",
    "../_base_/default_runtime.py",
]

model = dict(
    type="AMDIM",
    backbone=dict(type="ResNet", depth=50, out_indices=(2, 3)),
    embedding=dict(type="ShortcutHead", hidden_channels=(1024,), out_channels=1024),
    penalty=0.05,
    clip=20.0,
)
train_dataloader = dict(
    batch_size=128,
    dataset=dict(transform=dict(size=128, views=["amdim", "amdim"], shared_flip=True)),
)
optim_wrapper = dict(optimizer=dict(type="Adam", lr=2e-4))
param_scheduler = dict(type="LinearLR", start_factor=1e-3, begin=0, end=500, by_epoch=False)
train_cfg = dict(max_epochs=150)
