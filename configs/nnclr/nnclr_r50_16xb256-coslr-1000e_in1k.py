_base_ = [
    "../_base_/datasets/imagenet_mocov2.py",
    "../_base_/schedules/lars_warmup_coslr_1000e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    type="NNCLR",
    backbone=dict(type="ResNet", depth=50, zero_init_residual=True),
    head=dict(
        type="GlobalHead",
        hidden_channels=(2048, 2048),
        out_channels=256,
        norm=True,
        last_norm="bn",
    ),
    predictor=dict(type="GlobalHead", hidden_channels=(4096,), out_channels=256, norm=True),
    queue_size=98304,
    temperature=0.1,
)
train_dataloader = dict(batch_size=256, dataset=dict(transform=dict(views=["simclr", "simclr"])))
