# The small recipe of methods that follow a slow teacher without in-batch negatives: at the shared
# rate, or at 0.001 from the first step on, embeddings run after its drift, and nearly collapse.
_base_ = "./small_folder.py"

optim_wrapper = dict(optimizer=dict(lr=0.001))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, end=200),
    dict(type="CosineAnnealingLR", eta_min=0),
]
