_base_ = [
    "../_base_/datasets/imagenet_mocov2.py",
    "../_base_/schedules/sgd_coslr_200e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    type="DenseCL",
    backbone=dict(type="ResNet", depth=50),
    head=dict(type="GlobalHead", hidden_channels=(2048,), out_channels=128),
    dense_head=dict(type="DenseHead", hidden_channels=(2048,), out_channels=128),
    temperature=0.2,
    momentum=0.999,
    loss_lambda=0.5,
)
