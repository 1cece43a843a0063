# The learning rate is for 256 images a step, each of them in nine tiles.
_base_ = [
    "../_base_/datasets/imagenet_mocov2.py",
    "../_base_/schedules/sgd_coslr_200e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    type="Jigsaw",
    backbone=dict(type="ResNet", depth=50),
    head=dict(type="GlobalHead", hidden_channels=(), out_channels=1000, last_norm="bn"),
    num_permutations=2000,
)
# The shorter side resized to 256, a crop of 255, 64 pixels of each cell of 85.
train_dataloader = dict(
    dataset=dict(
        transform=dict(
            views=[
                dict(size=255, square=255 / 256, flip_prob=0.0, gray_prob=0.66, grid=3, patch=64),
            ],
        ),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=0.1))
param_scheduler = dict(_delete_=True, type="MultiStepLR", milestones=[30, 60, 90, 100], gamma=0.1)
train_cfg = dict(max_epochs=105)
