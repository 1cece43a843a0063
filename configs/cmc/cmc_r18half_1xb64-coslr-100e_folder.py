_base_ = "../_base_/small_folder.py"

model = dict(
    type="CMC",
    backbone=dict(type="SplitResNet", depth=18, width=0.5),
    head=dict(type="GlobalHead", hidden_channels=(), out_channels=128),
    num_negatives=4096,
)
train_dataloader = dict(dataset=dict(transform=dict(views=["crop_flip"])))
