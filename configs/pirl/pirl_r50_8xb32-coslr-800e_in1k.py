# As published; the learning rate is for 256 images a step.
_base_ = [
    "../_base_/datasets/imagenet_mocov2.py",
    "../_base_/schedules/sgd_coslr_200e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    type="PIRL",
    backbone=dict(type="ResNet", depth=50),
    head=dict(type="GlobalHead", hidden_channels=(), out_channels=128),
    patch_head=dict(type="GlobalHead", hidden_channels=(), out_channels=128),
    loss_lambda=0.5,
    num_negatives=32000,
    temperature=0.07,
    momentum=0.5,
)
train_dataloader = dict(
    dataset=dict(
        transform=dict(
            views=[
                "pirl",
                dict(preset="pirl", scale=(0.6, 1.0), size=255, grid=3, patch=64, shuffle=True),
            ],
        ),
    ),
)
optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0))
train_cfg = dict(max_epochs=800)
