_base_ = "../_base_/small_folder.py"

model = dict(
    type="SimSiam",
    backbone=dict(type="ResNet", depth=18),
    head=dict(
        type="GlobalHead",
        hidden_channels=(1024, 1024),
        out_channels=1024,
        norm=True,
        last_norm="bn_no_affine",
    ),
    predictor=dict(type="GlobalHead", hidden_channels=(256,), out_channels=1024, norm=True),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(predictor=dict(fix_lr=True))))
param_scheduler = dict(type="HoldableCosineLR")
