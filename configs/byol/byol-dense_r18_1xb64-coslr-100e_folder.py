# BYOL with a dense branch: cells in the same place predict each other.
_base_ = "./byol_r18_1xb64-coslr-100e_folder.py"

_mlp = dict(type="DenseHead", hidden_channels=(1024,), out_channels=256, norm=True)
model = dict(
    dense=dict(
        type="DenseBranch",
        head=_mlp,
        predictor=_mlp,
        match=dict(type="LocationMatch", num_pairs=4),
        loss_lambda=0.5,
    )
)
