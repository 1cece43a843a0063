"""COCO 2017: Mask R-CNN R50-C4, 1x (12 epochs of 16 images a step).

Every layer is trained with SyncBN, one more norm after C5. Shorter side 640..800 in training, 800
in the test.
"""

_base_ = "mmdet::mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py"
custom_imports = dict(imports=["densessl.transfer.mm.detection"], allow_failed_imports=False)

transfer = dict(
    task="instance",
    title="Mask R-CNN R50-C4 on COCO, 1x",
    data="a COCO folder with annotations/instances_{train,val}2017.json, train2017/ and val2017/",
    metric_note="COCO box and mask AP on val2017",
    total_batch=16,
)

# Written by tools/convert.py --to mmdet; tools/transfer.py sets it in both places.
init_cfg = dict(type="Pretrained", checkpoint="exported-backbone.pth")
norm_cfg = dict(type="SyncBN", requires_grad=True)
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(
        style="pytorch",
        frozen_stages=-1,
        norm_eval=False,
        norm_cfg=norm_cfg,
        init_cfg=init_cfg,
    ),
    roi_head=dict(
        shared_head=dict(
            type="Res5ExtraNorm",
            style="pytorch",
            norm_eval=False,
            norm_cfg=norm_cfg,
            init_cfg=init_cfg,
        )
    ),
)

train_pipeline = [
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
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(type="ExactCocoMetric")
test_evaluator = val_evaluator

default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
custom_hooks = [dict(type="densessl.PreciseBNHook", num_batches=200)]
