# The learning rate is for 32 images a step, each of them in four rotations.
_base_ = [
    "../_base_/datasets/imagenet_mocov2.py",
    "../_base_/schedules/sgd_coslr_200e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    type="RotNet",
    backbone=dict(type="ResNet", depth=50),
    head=dict(type="GlobalHead", hidden_channels=(), out_channels=4),
)
train_dataloader = dict(dataset=dict(transform=dict(views=["crop_flip"])))
optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, end=5, convert_to_iter_based=True),
    dict(type="MultiStepLR", milestones=[30, 50], gamma=0.1),
]
train_cfg = dict(max_epochs=70)
auto_scale_lr = dict(base_batch_size=32)
