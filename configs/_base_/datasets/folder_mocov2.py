# Two MoCo v2 views of each image below a folder of your own: tools/train.py CONFIG --images DIR
train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    dataset=dict(
        type="ImageFolder",
        root="data/images",
        transform=dict(type="MultiView", size=112, views=["moco_v2", "moco_v2"]),
    ),
)
