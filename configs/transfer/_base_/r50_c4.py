"""Detectors on C4, every layer trained, one more norm after C5."""

# Written by tools/convert.py --to mmdet; tools/transfer.py sets it. For mmdet's own tools set both
# model.backbone.init_cfg.checkpoint and model.roi_head.shared_head.init_cfg.checkpoint.
c4_weights = dict(type="Pretrained", checkpoint="exported-backbone.pth")
c4_norm = dict(type="SyncBN", requires_grad=True)
r50_c4 = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(
        style="pytorch",
        frozen_stages=-1,
        norm_eval=False,
        norm_cfg=c4_norm,
        init_cfg=c4_weights,
    ),
    roi_head=dict(
        shared_head=dict(
            type="Res5ExtraNorm",
            style="pytorch",
            norm_eval=False,
            norm_cfg=c4_norm,
            init_cfg=c4_weights,
        )
    ),
)
