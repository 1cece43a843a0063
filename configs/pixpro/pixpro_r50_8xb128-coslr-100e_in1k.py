# As published; the learning rate is for 256 images a step. With the instance branch: add
# instance_head=dict(type="DenseHead", hidden_channels=(4096,), out_channels=256, norm=True) and the
# same as instance_predictor.
_base_ = [
    "../_base_/datasets/imagenet_mocov2.py",
    "../_base_/schedules/sgd_coslr_200e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    type="PixPro",
    backbone=dict(type="ResNet", depth=50, zero_init_residual=True),
    head=dict(type="DenseHead", hidden_channels=(4096,), out_channels=256, norm=True),
    momentum=0.99,
    gamma=2.0,
    threshold=0.7,
)
train_dataloader = dict(
    batch_size=128,
    dataset=dict(transform=dict(views=["byol_1", "byol_2"])),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="LARS", lr=1.0, momentum=0.9, weight_decay=1e-5),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, end=5, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", begin=5, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=100)
