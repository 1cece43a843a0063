"""COCO 2017: Mask R-CNN R50-C4, 1x (12 epochs of 16 images a step).

Every layer is trained with SyncBN, one more norm after C5. Shorter side 640..800 in training, 800
in the test.
"""

_base_ = [
    "mmdet::mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py",
    "../_base_/published.py",
]
custom_imports = dict(imports=["densessl.transfer.mm.detection"], allow_failed_imports=False)

transfer = dict(_base_.coco_instances, title="Mask R-CNN R50-C4 on COCO, 1x")

model = _base_.r50_c4

train_pipeline = _base_.mask_pipeline
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(type="ExactCocoMetric")
test_evaluator = val_evaluator

default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
custom_hooks = [dict(type="densessl.PreciseBNHook", num_batches=200)]
