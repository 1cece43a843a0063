"""A small Faster R-CNN with FPN for any data set of yours, light enough for a CPU.

Images of 128 pixels (shorter side), FPN of 64 channels on C3..C5, BatchNorm trained everywhere, so
that random initialisation is a fair baseline. The backbone's depth follows the checkpoints, the
classes follow the data.
"""

_base_ = ["mmdet::_base_/models/faster-rcnn_r50_fpn.py", "mmdet::_base_/default_runtime.py"]
custom_imports = dict(imports=["densessl.transfer.mm.detection"], allow_failed_imports=False)

transfer = dict(
    task="detection",
    title="Small Faster R-CNN (FPN)",
    data="any",
    metric_note="",  # follows the layout of the data
    total_batch=8,
)

norm_cfg = dict(type="BN", requires_grad=True)
model = dict(
    backbone=dict(
        depth=18,
        frozen_stages=-1,
        norm_eval=False,
        norm_cfg=norm_cfg,
        init_cfg=dict(type="Pretrained", checkpoint="exported-backbone.pth"),
    ),
    neck=dict(
        in_channels=[64, 128, 256, 512],
        out_channels=64,
        start_level=1,
        num_outs=3,
        norm_cfg=norm_cfg,
    ),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[4], strides=[8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=1),
            out_channels=64,
            featmap_strides=[8, 16, 32],
            finest_scale=28,
        ),
        bbox_head=dict(
            type="ConvFCBBoxHead",
            num_shared_convs=1,
            num_shared_fcs=1,
            in_channels=64,
            conv_out_channels=64,
            fc_out_channels=256,
            norm_cfg=norm_cfg,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=200),
        rcnn=dict(sampler=dict(num=32)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=50), rcnn=dict(score_thr=0.02, max_per_img=50)),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomChoiceResize",
        scales=[(256, side) for side in (112, 128, 144)],
        keep_ratio=True,
    ),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(256, 128), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
# tools/transfer.py fills in the data sets.
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(pipeline=test_pipeline),
)
val_evaluator = dict()

train_cfg = dict(type="IterBasedTrainLoop", max_iters=600, val_interval=200)
val_cfg = dict(type="ValLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-4),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=600, milestones=[450, 550], gamma=0.1),
]
default_hooks = dict(checkpoint=None)
log_processor = dict(by_epoch=False)
custom_hooks = [dict(type="densessl.PreciseBNHook", num_batches=10)]
