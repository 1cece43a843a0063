"""COCO 2017: RetinaNet R50-FPN, 1x (12 epochs of 16 images a step).

Backbone and FPN are trained with SyncBN; the head has no norm, as one serves all levels. Shorter
side 640..800 in training, 800 in the test.
"""

_base_ = ["mmdet::retinanet/retinanet_r50_fpn_1x_coco.py", "../_base_/published.py"]
custom_imports = dict(imports=["densessl.transfer.mm.detection"], allow_failed_imports=False)

transfer = dict(
    _base_.coco_instances,
    task="detection",
    title="RetinaNet R50-FPN on COCO, 1x",
    metric_note="COCO box AP on val2017",
)

model = dict(backbone=_base_.trained_r50, neck=dict(norm_cfg=_base_.sync_bn))

train_pipeline = _base_.box_pipeline
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(type="ExactCocoMetric")
test_evaluator = val_evaluator

default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
custom_hooks = [dict(type="densessl.PreciseBNHook", num_batches=200)]
