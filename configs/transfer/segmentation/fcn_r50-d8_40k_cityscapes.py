"""Cityscapes: FCN R50-d8, 40k iterations of 8 crops of 769 pixels, sliding test (stride 513)."""

_base_ = ["mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-769x769.py", "../_base_/published.py"]
custom_imports = dict(imports=["densessl.transfer.mm.segmentation"], allow_failed_imports=False)

transfer = dict(
    task="segmentation",
    title="FCN R50-d8 on Cityscapes, 40k iterations",
    data="a Cityscapes folder with leftImg8bit/{train,val} and gtFine/{train,val}, in which "
    "csCreateTrainIdLabelImgs of cityscapesscripts has written the *_gtFine_labelTrainIds.png",
    metric_note="mIoU over 19 classes on val, single scale",
    total_batch=8,
)

model = _base_.plain_resnet
val_evaluator = dict(type="ExactIoUMetric")
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
