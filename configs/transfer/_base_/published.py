"""Pieces of the published benchmarks, each for more than one of them."""

# COCO with instance masks.
coco_instances = dict(
    task="instance",
    data="a COCO folder with annotations/instances_{train,val}2017.json, train2017/ and val2017/",
    metric_note="COCO box and mask AP on val2017",
    total_batch=16,
)
sync_bn = dict(type="SyncBN", requires_grad=True)
load_image = dict(type="LoadImageFromFile", backend_args=None)
multi_scale = [
    dict(
        type="RandomChoiceResize",
        scales=[(1333, side) for side in (640, 672, 704, 736, 768, 800)],
        keep_ratio=True,
    ),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
box_pipeline = [load_image, dict(type="LoadAnnotations", with_bbox=True), *multi_scale]
mask_pipeline = [
    load_image,
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    *multi_scale,
]

# Detectors on an FPN: every layer trained.
trained_r50 = dict(
    frozen_stages=-1,
    norm_eval=False,
    norm_cfg=sync_bn,
    # Written by tools/convert.py --to mmdet; tools/transfer.py sets it.
    init_cfg=dict(type="Pretrained", checkpoint="exported-backbone.pth"),
)

# Detectors on C4: every layer trained, one more norm after C5.
# Written by tools/convert.py --to mmdet; tools/transfer.py sets it. For mmdet's own tools set both
# model.backbone.init_cfg.checkpoint and model.roi_head.shared_head.init_cfg.checkpoint.
c4_weights = dict(type="Pretrained", checkpoint="exported-backbone.pth")
r50_c4 = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(
        style="pytorch",
        frozen_stages=-1,
        norm_eval=False,
        norm_cfg=sync_bn,
        init_cfg=c4_weights,
    ),
    roi_head=dict(
        shared_head=dict(
            type="Res5ExtraNorm",
            style="pytorch",
            norm_eval=False,
            norm_cfg=sync_bn,
            init_cfg=c4_weights,
        )
    ),
)

# mmseg's own models have another stem.
plain_resnet = dict(
    pretrained=None,
    backbone=dict(
        type="ResNet",
        # Written by tools/convert.py --to mmseg; tools/transfer.py sets it.
        init_cfg=dict(type="Pretrained", checkpoint="exported-backbone.pth"),
    ),
)
