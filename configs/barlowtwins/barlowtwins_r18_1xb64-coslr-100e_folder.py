# For a CPU or one GPU and a folder of your own: tools/train.py THIS --images DIR
_base_ = [
    "../_base_/datasets/folder_mocov2.py",
    "../_base_/schedules/sgd_coslr_100e_small.py",
    "../_base_/default_runtime.py",
]

model = dict(
    type="BarlowTwins",
    backbone=dict(type="ResNet", depth=18),
    head=dict(
        type="GlobalHead", hidden_channels=(1024, 1024), out_channels=1024, norm=True, bias=False
    ),
    loss=dict(type="BarlowTwinsLoss", lambd=0.0051),
)
train_dataloader = dict(dataset=dict(transform=dict(views=["byol_1", "byol_2"])))
# A loss that is a sum over channels wants steps that do not grow with it.
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=0.002, weight_decay=1e-4))
