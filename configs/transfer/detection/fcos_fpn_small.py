"""A small FCOS: the lightest detector here, and the first to learn something from scratch.

As the small Faster R-CNN, but one stage: a head of two convolutions on C3..C5 of the FPN.
"""

_base_ = [
    "mmdet::_base_/models/retinanet_r50_fpn.py",
    "../_base_/small_detection.py",
]
custom_imports = dict(imports=["densessl.transfer.mm.detection"], allow_failed_imports=False)

transfer = dict(title="Small FCOS (FPN)")

model = dict(
    type="FCOS",
    backbone=_base_.small_backbone,
    neck=_base_.small_neck,
    bbox_head=dict(
        _delete_=True,
        type="FCOSHead",
        num_classes=80,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        strides=[8, 16, 32],
        regress_ranges=((-1, 32), (32, 64), (64, 1e8)),
        # One head on all levels, whose statistics differ: no BatchNorm here.
        norm_cfg=dict(type="GN", num_groups=16, requires_grad=True),
        norm_on_bbox=True,
        centerness_on_reg=True,
        center_sampling=True,
        loss_bbox=dict(type="GIoULoss", loss_weight=1.0),
    ),
    train_cfg=None,
    test_cfg=dict(
        _delete_=True,
        nms_pre=200,
        score_thr=0.02,
        nms=dict(type="nms", iou_threshold=0.5),
        max_per_img=50,
    ),
)
