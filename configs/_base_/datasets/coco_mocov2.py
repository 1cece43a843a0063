# Two MoCo v2 views of each image of COCO's train2017.
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    dataset=dict(
        type="CocoImages",
        root="data/coco/train2017",
        annotation="data/coco/annotations/instances_train2017.json",
        transform=dict(type="MultiView", size=224, views=["moco_v2", "moco_v2"]),
    ),
)
