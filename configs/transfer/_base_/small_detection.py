"""What the small detectors share: backbone and neck, data pipelines."""

_base_ = ["mmdet::_base_/default_runtime.py", "./small_schedule.py"]

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
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, drop_last=False, dataset=dict(pipeline=test_pipeline))

optim_wrapper = dict(clip_grad=dict(max_norm=10))
default_hooks = dict(checkpoint=None)
log_processor = dict(by_epoch=False)
