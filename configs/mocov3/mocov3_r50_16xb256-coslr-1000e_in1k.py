_base_ = [
    "../_base_/datasets/imagenet_mocov2.py",
    "../_base_/schedules/lars_warmup_coslr_1000e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    type="MoCoV3",
    backbone=dict(type="ResNet", depth=50, zero_init_residual=True),
    head=dict(
        type="GlobalHead",
        hidden_channels=(4096,),
        out_channels=256,
        norm=True,
        last_norm="bn_no_affine",
        bias=False,
    ),
    predictor=dict(
        type="GlobalHead", hidden_channels=(4096,), out_channels=256, norm=True, bias=False
    ),
    temperature=1.0,
    momentum=0.996,
    end_momentum=1.0,
)
train_dataloader = dict(
    batch_size=256,
    dataset=dict(
        transform=dict(
            views=[
                dict(preset="byol_1", scale=(0.2, 1.0)),
                dict(preset="byol_2", scale=(0.2, 1.0)),
            ]
        )
    ),
)
optim_wrapper = dict(optimizer=dict(weight_decay=1.5e-6))
