# For a CPU or one GPU and a folder of your own: tools/train.py THIS --images DIR
_base_ = [
    "../_base_/datasets/folder_mocov2.py",
    "../_base_/schedules/sgd_coslr_100e_small.py",
    "../_base_/default_runtime.py",
]

model = dict(
    type="SimCLR",
    backbone=dict(type="ResNet", depth=18),
    head=dict(
        type="GlobalHead",
        hidden_channels=(512,),
        out_channels=128,
        norm=True,
        last_norm="bn_no_shift",
    ),
    loss=dict(type="NTXent", temperature=0.2),  # few negatives: less sharp
)
train_dataloader = dict(dataset=dict(transform=dict(views=["simclr", "simclr"])))
