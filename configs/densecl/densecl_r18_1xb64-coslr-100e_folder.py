# For a CPU or one GPU and a folder of your own: tools/train.py THIS --images DIR
_base_ = [
    "../_base_/models/densecl_r50.py",
    "../_base_/datasets/folder_mocov2.py",
    "../_base_/schedules/sgd_coslr_100e_small.py",
    "../_base_/default_runtime.py",
]

# A short training has few steps: the teacher follows faster.
model = dict(backbone=dict(depth=18), momentum=0.99)
