# Ten epochs of warm-up, then cosine to zero over the rest of train_cfg.max_epochs, stepped every
# step; the rate is for 256 images.
optim_wrapper = dict(
    optimizer=dict(type="LARS", lr=0.3, momentum=0.9, weight_decay=1e-6),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-4, end=10, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min_ratio=0, begin=10, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=1000)
auto_scale_lr = dict(base_batch_size=256, enable=True)
