"""Correspondence by place: cells of two views that show the same spot of the source image."""

import torch
from torch import Tensor

from densessl.correspondence.geometry import distances


def cell_diagonals(box: Tensor, grid: int) -> Tensor:
    """Diagonal of a cell of a ``grid`` x ``grid`` map over each crop, in source pixels.

    Args:
        box: (B, 4) crop boxes x0, y0, x1, y1 in source pixels.
        grid: Cells along each side.

    Returns:
        (B,)
    """
    return (box[:, 2:] - box[:, :2]).norm(dim=1) / grid


@torch.no_grad()
def match_by_location(query_centers: Tensor, key_centers: Tensor) -> Tensor:
    """The key cell nearest to each query cell in the source image. Many to one is allowed.

    Args:
        query_centers: (B, Q, 2) source pixels, see ``cell_centers``.
        key_centers: (B, K, 2) source pixels.

    Returns:
        (B, Q) int64, indices into the K key cells.

    Source: VICRegL (2210.01571), section 3.2.
    """
    return distances(query_centers, key_centers).argmin(dim=2)


@torch.no_grad()
def match_by_distance(
    query_centers: Tensor,
    key_centers: Tensor,
    query_diagonals: Tensor,
    key_diagonals: Tensor,
    threshold: float = 0.7,
) -> Tensor:
    """All pairs of cells whose centres are closer than ``threshold`` of the larger cell's diagonal.

    Args:
        query_centers: (B, Q, 2) source pixels, see ``cell_centers``.
        key_centers: (B, K, 2) source pixels.
        query_diagonals: (B,) source pixels, see ``cell_diagonals``.
        key_diagonals: (B,) source pixels.
        threshold: In diagonals of the larger cell.

    Returns:
        (B, Q, K) bool; a cell may have any number of partners, also none.

    Source: PixPro (2011.10043), equation 1.
    """
    reach = threshold * torch.maximum(query_diagonals, key_diagonals)
    return distances(query_centers, key_centers) < reach[:, None, None]
