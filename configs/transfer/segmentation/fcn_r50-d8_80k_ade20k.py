"""ADE20K: FCN R50-d8, 80k iterations of 16 crops of 512 pixels, 150 classes."""

_base_ = ["mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py", "../_base_/published.py"]
custom_imports = dict(imports=["densessl.transfer.mm.segmentation"], allow_failed_imports=False)

transfer = dict(
    task="segmentation",
    title="FCN R50-d8 on ADE20K, 80k iterations",
    data="the folder ADEChallengeData2016 with {images,annotations}/{training,validation}",
    metric_note="mIoU over 150 classes on validation, single scale",
    total_batch=16,
)

model = _base_.plain_resnet
val_evaluator = dict(type="ExactIoUMetric")
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
