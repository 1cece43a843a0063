_base_ = [
    "../_base_/datasets/imagenet_mocov2.py",
    "../_base_/schedules/lars_warmup_coslr_1000e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    type="SimCLR",
    backbone=dict(type="ResNet", depth=50, zero_init_residual=True),
    head=dict(
        type="GlobalHead",
        hidden_channels=(2048,),
        out_channels=128,
        norm=True,
        last_norm="bn_no_shift",
    ),
    loss=dict(type="NTXent", temperature=0.1),
)
train_dataloader = dict(batch_size=256, dataset=dict(transform=dict(views=["simclr", "simclr"])))
