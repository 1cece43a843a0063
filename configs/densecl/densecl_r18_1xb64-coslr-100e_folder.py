_base_ = ["../_base_/models/densecl_r50.py", "../_base_/small_folder_warmup.py"]

# A short training has few steps: the teacher follows faster.
model = dict(backbone=dict(depth=18), momentum=0.99)
