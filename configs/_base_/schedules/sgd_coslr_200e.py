# Cosine to zero over train_cfg.max_epochs, stepped once an epoch; the learning rate is for 256
# images a step.
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.03, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = dict(type="CosineAnnealingLR", eta_min=0)
train_cfg = dict(max_epochs=200)
auto_scale_lr = dict(base_batch_size=256, enable=True)
