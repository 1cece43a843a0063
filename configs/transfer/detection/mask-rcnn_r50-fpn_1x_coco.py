"""COCO 2017: Mask R-CNN R50-FPN, 1x (12 epochs of 16 images a step).

Every layer is trained with SyncBN: backbone, FPN, box head (4 conv, 1 fc) and mask head; the RPN
has no norm. Shorter side 640..800 in training, 800 in the test.
"""

_base_ = ["mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", "../_base_/published.py"]
custom_imports = dict(imports=["densessl.transfer.mm.detection"], allow_failed_imports=False)

transfer = dict(_base_.coco_instances, title="Mask R-CNN R50-FPN on COCO, 1x")

model = dict(
    backbone=_base_.trained_r50,
    neck=dict(norm_cfg=_base_.sync_bn),
    roi_head=dict(
        bbox_head=dict(
            type="Shared4Conv1FCBBoxHead", conv_out_channels=256, norm_cfg=_base_.sync_bn
        ),
        mask_head=dict(norm_cfg=_base_.sync_bn),
    ),
)

train_pipeline = _base_.mask_pipeline
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(type="ExactCocoMetric")
test_evaluator = val_evaluator

default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
custom_hooks = [dict(type="densessl.PreciseBNHook", num_batches=200)]
