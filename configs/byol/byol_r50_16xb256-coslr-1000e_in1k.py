_base_ = [
    "../_base_/datasets/imagenet_mocov2.py",
    "../_base_/schedules/lars_warmup_coslr_1000e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    type="BYOL",
    backbone=dict(type="ResNet", depth=50, zero_init_residual=True),
    head=dict(type="GlobalHead", hidden_channels=(4096,), out_channels=256, norm=True),
    predictor=dict(type="GlobalHead", hidden_channels=(4096,), out_channels=256, norm=True),
    momentum=0.996,
    end_momentum=1.0,
)
train_dataloader = dict(
    batch_size=256,
    dataset=dict(
        transform=dict(
            views=[dict(preset=name, interpolation="bicubic") for name in ("byol_1", "byol_2")],
        ),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=0.2, weight_decay=1.5e-6))
