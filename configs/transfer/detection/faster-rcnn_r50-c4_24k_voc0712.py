"""PASCAL VOC 07+12 trainval, tested on VOC07: Faster R-CNN R50-C4, 24k iterations of 16 images.

The protocol of MoCo (arXiv 1911.05722) and DenseCL (arXiv 2011.09157) in mmdet: every layer is
trained with SyncBN, one more norm after C5, AP by VOC07's 11-point rule at .50:.95. detectron2,
where the papers' numbers come from, trains on objects marked difficult; mmdet ignores them.
"""

_base_ = [
    "mmdet::pascal_voc/faster-rcnn_r50-caffe-c4_ms-18k_voc0712.py",
    "../_base_/published.py",
]
custom_imports = dict(imports=["densessl.transfer.mm.detection"], allow_failed_imports=False)

transfer = dict(
    task="detection",
    title="Faster R-CNN R50-C4 on VOC07+12, 24k iterations",
    data="a VOCdevkit folder with VOC2007/ (trainval and test) and VOC2012/ (trainval)",
    metric_note="AP over IoU .50:.95, AP50, AP75; VOC07's 11-point rule at every threshold; "
    "boxes marked difficult are ignored in training and in the test",
    total_batch=16,
)

model = _base_.r50_c4

# Without ignore_keys the two years' metainfo becomes a list of two dicts.
train_dataloader = dict(dataset=dict(ignore_keys=["dataset_type"]))
val_evaluator = dict(
    type="ExactVOCMetric",
    iou_thrs=[0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95],
    eval_mode="11points",
)
test_evaluator = val_evaluator

train_cfg = dict(max_iters=24000, val_interval=3000)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=100),
    dict(
        type="MultiStepLR",
        by_epoch=False,
        begin=0,
        end=24000,
        milestones=[18000, 22000],
        gamma=0.1,
    ),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
custom_hooks = [dict(type="densessl.PreciseBNHook", num_batches=200)]
