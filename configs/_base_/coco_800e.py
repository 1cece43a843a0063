# COCO's train2017 in two MoCo v2 views, as published: 800 epochs, ten times the rate of ImageNet.
_base_ = ["./schedules/sgd_coslr_200e.py", "./default_runtime.py"]

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
optim_wrapper = dict(optimizer=dict(lr=0.3))
train_cfg = dict(max_epochs=800)
