"""What the instance segmentation benchmarks on COCO share."""

coco_instances = dict(
    task="instance",
    data="a COCO folder with annotations/instances_{train,val}2017.json, train2017/ and val2017/",
    metric_note="COCO box and mask AP on val2017",
    total_batch=16,
)
sync_bn = dict(type="SyncBN", requires_grad=True)
multi_scale_pipeline = [
    dict(type="LoadImageFromFile", backend_args=None),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(
        type="RandomChoiceResize",
        scales=[(1333, side) for side in (640, 672, 704, 736, 768, 800)],
        keep_ratio=True,
    ),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
