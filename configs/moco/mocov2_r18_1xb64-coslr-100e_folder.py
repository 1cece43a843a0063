_base_ = ["../_base_/models/mocov2_r50.py", "../_base_/small_folder.py"]

# A short training has few steps: the teacher follows faster.
model = dict(backbone=dict(depth=18), momentum=0.99)
# At the shared rate all embeddings run after the teacher's drift in one direction, and collapse.
optim_wrapper = dict(optimizer=dict(lr=0.001))
