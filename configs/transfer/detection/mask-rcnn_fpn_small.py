"""A small Mask R-CNN with FPN for any data set of yours with instance masks (COCO json)."""

_base_ = "faster-rcnn_fpn_small.py"

transfer = dict(task="instance", title="Small Mask R-CNN (FPN)")

model = dict(
    type="MaskRCNN",
    data_preprocessor=dict(pad_mask=True),
    roi_head=dict(
        mask_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=1),
            out_channels=64,
            featmap_strides=[8, 16, 32],
            finest_scale=28,
        ),
        mask_head=dict(
            type="FCNMaskHead",
            num_convs=2,
            in_channels=64,
            conv_out_channels=64,
            norm_cfg=dict(type="BN", requires_grad=True),
            num_classes=80,
            loss_mask=dict(type="CrossEntropyLoss", use_mask=True, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(rcnn=dict(mask_size=28)),
    test_cfg=dict(rcnn=dict(mask_thr_binary=0.5)),
)

_with_masks = [dict(type="LoadAnnotations", with_bbox=True, with_mask=True)]
train_pipeline = _base_.train_pipeline[:1] + _with_masks + _base_.train_pipeline[2:]
test_pipeline = _base_.test_pipeline[:2] + _with_masks + _base_.test_pipeline[3:]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
