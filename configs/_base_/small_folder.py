# The small recipe: a folder of your own, 112 px, 64 images a step, 100 epochs on a CPU or one GPU.
# tools/train.py CONFIG --images DIR
_base_ = [
    "./datasets/folder_mocov2.py",
    "./schedules/sgd_coslr_100e_small.py",
    "./default_runtime.py",
]
