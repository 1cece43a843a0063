_base_ = ["../_base_/models/mocov2_r50.py", "../_base_/coco_800e.py"]

# As published; the default would be a quarter of the images.
model = dict(queue_size=65536)
