_base_ = "../_base_/small_folder.py"

_head = dict(type="GlobalHead", hidden_channels=(), out_channels=128)
model = dict(
    type="PIRL",
    backbone=dict(type="ResNet", depth=18),
    head=_head,
    patch_head=_head,
    num_negatives=4096,
)
# Patches of 32 pixels out of cells of 37.
_views = [
    "pirl",
    dict(preset="pirl", scale=(0.6, 1.0), size=111, grid=3, patch=32, shuffle=True),
]
train_dataloader = dict(dataset=dict(transform=dict(views=_views)))
