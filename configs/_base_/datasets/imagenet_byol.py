# BYOL's two views of each image of ImageNet's train folder, 256 images on each device.
_base_ = "./imagenet_mocov2.py"

train_dataloader = dict(
    batch_size=256,
    dataset=dict(
        transform=dict(
            views=[
                dict(preset="byol_1", interpolation="bicubic"),
                dict(preset="byol_2", interpolation="bicubic"),
            ]
        )
    ),
)
