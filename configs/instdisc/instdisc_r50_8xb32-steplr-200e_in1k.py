_base_ = [
    "../_base_/datasets/imagenet_mocov2.py",
    "../_base_/schedules/sgd_coslr_200e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    type="InstDisc",
    backbone=dict(type="ResNet", depth=50),
    head=dict(type="GlobalHead", hidden_channels=(), out_channels=128),
    objective="nce",
    temperature=0.07,
    momentum=0.5,
)
train_dataloader = dict(dataset=dict(transform=dict(views=["moco_v1"])))
param_scheduler = dict(_delete_=True, type="MultiStepLR", milestones=[120, 160], gamma=0.1)
