_base_ = "../_base_/small_folder.py"

model = dict(
    type="Jigsaw",
    backbone=dict(type="ResNet", depth=18),
    head=dict(type="GlobalHead", hidden_channels=(), out_channels=256, last_norm="bn"),
    num_permutations=100,
)
# Patches of 32 pixels out of cells of 37.
_tiles = dict(size=111, square=255 / 256, flip_prob=0.0, gray_prob=0.66, grid=3, patch=32)
train_dataloader = dict(dataset=dict(transform=dict(views=[_tiles])))
