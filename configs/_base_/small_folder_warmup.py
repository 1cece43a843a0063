# The small recipe of methods whose queries follow a slow teacher's keys: at the shared rate, or at
# any from the first step on, all embeddings run after the teacher's drift, and collapse or nearly so.
_base_ = "./small_folder.py"

optim_wrapper = dict(optimizer=dict(lr=0.001))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, end=200),
    dict(type="CosineAnnealingLR", eta_min=0),
]
