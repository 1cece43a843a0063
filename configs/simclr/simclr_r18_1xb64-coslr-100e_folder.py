_base_ = "../_base_/small_folder.py"

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
