"""Correspondence by similarity of features."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.precision import full_precision, l2_normalize


@torch.no_grad()
@full_precision
def match_by_feature(query: Tensor, key: Tensor) -> Tensor:
    """The most similar key cell of each query cell, by cosine. Many to one is allowed.

    Args:
        query: (B, C, Hq, Wq) feature maps of the query views.
        key: (B, C, Hk, Wk) feature maps of the key views.

    Returns:
        (B, Hq*Wq) int64, row-major indices into the Hk*Wk key cells.

    Source: DenseCL (2011.09157), equation 4.
    """
    query_BCQ = l2_normalize(query.flatten(2))
    key_BCK = l2_normalize(key.flatten(2))
    return torch.bmm(query_BCQ.transpose(1, 2), key_BCK).argmax(dim=2)


def gather_cells(cells: Tensor, index: Tensor) -> Tensor:
    """Cell ``index[b, q]`` of each map: (B, C, H, W), (B, Q) -> (B, C, Q)."""
    cells_BCK = cells.flatten(2)
    return cells_BCK.gather(2, index.unsqueeze(1).expand(-1, cells_BCK.shape[1], -1))


def pool_to_grid(features: Tensor, grid: int | None) -> Tensor:
    """Average-pools (B, C, H, W) to (B, C, grid, grid); None leaves the map as it is.

    As ``adaptive_avg_pool2d`` does, whose gradient is not deterministic on a GPU.
    """
    height, width = features.shape[-2:]
    if grid is None or height == width == grid:
        return features
    if height % grid == width % grid == 0:
        return F.avg_pool2d(features, (height // grid, width // grid))
    rows, columns = (_shares(side, grid, features) for side in (height, width))
    return _pool(features, rows, columns).to(features.dtype)


@full_precision
def _pool(features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return rows @ features @ columns.T


def _shares(side: int, grid: int, like: Tensor) -> Tensor:
    """(grid, side): the share of each place in each cell, which may overlap by a place."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    place = torch.arange(side, device=like.device)
    cell = torch.arange(grid, device=like.device)[:, None]
    covered = (place >= cell * side // grid) & (place < -(-(cell + 1) * side // grid))
    return covered.to(dtype) / covered.sum(1, keepdim=True)
