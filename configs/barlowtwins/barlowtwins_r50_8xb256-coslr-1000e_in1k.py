_base_ = [
    "../_base_/datasets/imagenet_mocov2.py",
    "../_base_/schedules/lars_warmup_coslr_1000e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    type="BarlowTwins",
    backbone=dict(type="ResNet", depth=50, zero_init_residual=True),
    head=dict(
        type="GlobalHead", hidden_channels=(8192, 8192), out_channels=8192, norm=True, bias=False
    ),
    loss=dict(type="BarlowTwinsLoss", lambd=0.0051),
)
train_dataloader = dict(
    batch_size=256,
    dataset=dict(
        transform=dict(
            views=[dict(preset=name, interpolation="bicubic") for name in ("byol_1", "byol_2")],
        ),
    ),
)
# Biases and norms learn at 0.0048 for 256 images.
optim_wrapper = dict(optimizer=dict(lr=0.2, vector_lr_mult=0.024, weight_decay=1.5e-6))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-4, end=10, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min_ratio=0.001,
        begin=10,
        convert_to_iter_based=True,
    ),
]
