_base_ = "../_base_/small_folder.py"

model = dict(
    type="NNCLR",
    backbone=dict(type="ResNet", depth=18),
    head=dict(
        type="GlobalHead", hidden_channels=(512, 512), out_channels=128, norm=True, last_norm="bn"
    ),
    predictor=dict(type="GlobalHead", hidden_channels=(1024,), out_channels=128, norm=True),
    temperature=0.2,  # few negatives: less sharp
)
train_dataloader = dict(dataset=dict(transform=dict(views=["simclr", "simclr"])))
