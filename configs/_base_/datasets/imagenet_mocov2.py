# Two MoCo v2 views of each image of ImageNet's train folder.
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    dataset=dict(
        type="ImageNet",
        root="data/imagenet",
        transform=dict(type="MultiView", size=224, views=["moco_v2", "moco_v2"]),
    ),
)
