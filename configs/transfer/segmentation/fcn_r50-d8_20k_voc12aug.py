"""PASCAL VOC 2012 train_aug, tested on val: FCN R50-d8, 20k iterations of 16 crops of 512 pixels.

The plain ResNet (mmseg's base has another stem), SyncBN everywhere. Needs the augmented
annotations: SegmentationClassAug/ and ImageSets/Segmentation/aug.txt.
"""

_base_ = ["mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py", "../_base_/published.py"]
custom_imports = dict(imports=["densessl.transfer.mm.segmentation"], allow_failed_imports=False)

transfer = dict(
    task="segmentation",
    title="FCN R50-d8 on VOC12+aug, 20k iterations",
    data="a VOC2012 folder with SegmentationClassAug/, ImageSets/Segmentation/{train,aug,val}.txt",
    metric_note="mIoU over 21 classes on VOC2012 val, single scale",
    total_batch=16,
)

model = _base_.plain_resnet
val_evaluator = dict(type="ExactIoUMetric")
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
