"""The plain ResNet for mmseg, whose own models have another stem."""

plain_resnet = dict(
    pretrained=None,
    backbone=dict(
        type="ResNet",
        # Written by tools/convert.py --to mmseg; tools/transfer.py sets it.
        init_cfg=dict(type="Pretrained", checkpoint="exported-backbone.pth"),
    ),
)
