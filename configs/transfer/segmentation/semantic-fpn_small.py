"""A small Semantic FPN: the lightest segmenter here, and the first to learn something from scratch.

As the small FCN, but the backbone keeps its strides and an FPN of 64 channels on C2..C5 brings the
finer maps back.
"""

_base_ = "fcn_small.py"

transfer = dict(title="Small Semantic FPN")

norm_cfg = dict(type="BN", requires_grad=True)
model = dict(
    backbone=dict(strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1)),
    neck=dict(
        type="FPN",
        in_channels=[64, 128, 256, 512],
        out_channels=64,
        num_outs=4,
        norm_cfg=norm_cfg,
    ),
    decode_head=dict(
        _delete_=True,
        type="FPNHead",
        in_channels=[64, 64, 64, 64],
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=64,
        num_classes=19,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", avg_non_ignore=True),
    ),
)
