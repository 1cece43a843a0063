model = dict(
    type="MoCo",
    backbone=dict(type="ResNet", depth=50),
    head=dict(type="GlobalHead", hidden_channels=(2048,), out_channels=128),
    temperature=0.2,
    momentum=0.999,
)
