"""A small Faster R-CNN with FPN for any data set of yours, light enough for a CPU.

Images of up to 128 pixels (shorter side), FPN of 64 channels on C3..C5, BatchNorm trained
everywhere and AdamW, so that random initialisation is a fair baseline. The backbone's depth follows
the checkpoints, the classes follow the data.
"""

_base_ = [
    "mmdet::_base_/models/faster-rcnn_r50_fpn.py",
    "../_base_/small_detection.py",
]
custom_imports = dict(imports=["densessl.transfer.mm.detection"], allow_failed_imports=False)

transfer = dict(title="Small Faster R-CNN (FPN)")

model = dict(
    backbone=_base_.small_backbone,
    neck=_base_.small_neck,
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[4], strides=[8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=1),
            out_channels=64,
            featmap_strides=[8, 16, 32],
            finest_scale=28,
        ),
        bbox_head=dict(
            type="ConvFCBBoxHead",
            num_shared_convs=1,
            num_shared_fcs=1,
            in_channels=64,
            conv_out_channels=64,
            fc_out_channels=256,
            norm_cfg=_base_.norm_cfg,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=200),
        rcnn=dict(sampler=dict(num=32)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=50), rcnn=dict(score_thr=0.02, max_per_img=50)),
)
