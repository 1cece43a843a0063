# Deep InfoMax's task and rate on a network that the paper does not have. As published: local with
# the JSD estimator and the prior, Adam at 1e-4 for 64 images. Ours: ResNet-50, the C4 map at 14 x 14,
# crops and flips, 200 epochs.
_base_ = [
    "../_base_/datasets/imagenet_mocov2.py",
    "../_base_/default_runtime.py",
]

model = dict(
    type="DIM",
    backbone=dict(type="ResNet", depth=50, out_indices=(2, 3)),
    head=dict(type="GlobalHead", hidden_channels=(1024,), out_channels=64, norm=True),
    embedding=dict(type="ShortcutHead", hidden_channels=(2048,), out_channels=2048),
    estimator="jsd",
    global_weight=0.0,
    local_weight=1.0,
    prior_weight=0.1,
)
train_dataloader = dict(batch_size=64, dataset=dict(transform=dict(views=["crop_flip"])))
optim_wrapper = dict(optimizer=dict(type="Adam", lr=1e-4))
train_cfg = dict(max_epochs=200)
