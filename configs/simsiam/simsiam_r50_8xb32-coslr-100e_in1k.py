_base_ = [
    "../_base_/datasets/imagenet_mocov2.py",
    "../_base_/schedules/sgd_coslr_200e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    type="SimSiam",
    backbone=dict(type="ResNet", depth=50, zero_init_residual=True),
    head=dict(
        type="GlobalHead",
        hidden_channels=(2048, 2048),
        out_channels=2048,
        norm=True,
        last_norm="bn_no_affine",
    ),
    predictor=dict(type="GlobalHead", hidden_channels=(512,), out_channels=2048, norm=True),
)
# The predictor's learning rate stays as it is.
optim_wrapper = dict(
    optimizer=dict(lr=0.05), paramwise_cfg=dict(custom_keys=dict(predictor=dict(fix_lr=True)))
)
param_scheduler = dict(type="HoldableCosineLR")
train_cfg = dict(max_epochs=100)
