"""What the small detectors share: backbone and neck, data pipelines, schedule."""

_base_ = "mmdet::_base_/default_runtime.py"

transfer = dict(
    task="detection",
    data="any",
    metric_note="",  # follows the layout of the data
    total_batch=8,
)

norm_cfg = dict(type="BN", requires_grad=True)
small_backbone = dict(
    depth=18,
    frozen_stages=-1,
    norm_eval=False,
    norm_cfg=norm_cfg,
    init_cfg=dict(type="Pretrained", checkpoint="exported-backbone.pth"),
)
small_neck = dict(
    in_channels=[64, 128, 256, 512],
    out_channels=64,
    start_level=1,
    num_outs=3,
    norm_cfg=norm_cfg,
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomChoiceResize",
        scales=[(256, side) for side in (112, 128)],
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
    optimizer=dict(type="AdamW", lr=0.001, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=600),
]
default_hooks = dict(checkpoint=None)
log_processor = dict(by_epoch=False)
custom_hooks = [dict(type="densessl.PreciseBNHook", num_batches=10)]
