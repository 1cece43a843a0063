# COCO's train2017, as published: 800 epochs, ten times the rate of ImageNet.
_base_ = "./mocov2_r50_8xb32-coslr-200e_in1k.py"

# As published; the default would be a quarter of the images.
model = dict(queue_size=65536)
train_dataloader = dict(
    dataset=dict(
        type="CocoImages",
        root="data/coco/train2017",
        annotation="data/coco/annotations/instances_train2017.json",
    ),
)
optim_wrapper = dict(optimizer=dict(lr=0.3))
train_cfg = dict(max_epochs=800)
