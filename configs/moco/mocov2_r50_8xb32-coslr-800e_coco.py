_base_ = [
    "../_base_/models/mocov2_r50.py",
    "../_base_/datasets/coco_mocov2.py",
    "../_base_/schedules/sgd_coslr_800e.py",
    "../_base_/default_runtime.py",
]

# As published; the default would be a quarter of the images.
model = dict(queue_size=65536)
