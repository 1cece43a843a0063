_base_ = [
    "../_base_/datasets/imagenet_mocov2.py",
    "../_base_/schedules/lars_warmup_coslr_1000e.py",
    "../_base_/default_runtime.py",
]

# Both views from one distribution, between BYOL's two.
_view = dict(preset="byol_1", blur_prob=0.5, solarize_prob=0.1, interpolation="bicubic")
model = dict(
    type="VICReg",
    backbone=dict(type="ResNet", depth=50, zero_init_residual=True),
    head=dict(
        type="GlobalHead", hidden_channels=(8192, 8192), out_channels=8192, norm=True, bias=False
    ),
    loss=dict(type="VICRegLoss", sim_weight=25, var_weight=25, cov_weight=1),
)
train_dataloader = dict(batch_size=256, dataset=dict(transform=dict(views=[_view, _view])))
optim_wrapper = dict(optimizer=dict(lr=0.2))
# Down to 0.002 at 2048 images a step.
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-4, end=10, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min_ratio=0.00125,
        begin=10,
        convert_to_iter_based=True,
    ),
]
