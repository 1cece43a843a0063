# As published; the learning rate is for 128 images a step.
_base_ = [
    "../_base_/datasets/imagenet_mocov2.py",
    "../_base_/schedules/sgd_coslr_200e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    type="CMC",
    backbone=dict(type="SplitResNet", depth=50, width=0.5),
    head=dict(type="GlobalHead", hidden_channels=(), out_channels=128),
    num_negatives=16384,
    temperature=0.07,
    momentum=0.5,
)
train_dataloader = dict(dataset=dict(transform=dict(views=["crop_flip"])))
param_scheduler = dict(_delete_=True, type="MultiStepLR", milestones=[120, 160, 200], gamma=0.1)
train_cfg = dict(max_epochs=240)
auto_scale_lr = dict(base_batch_size=128)
