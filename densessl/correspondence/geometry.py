"""Correspondence by place: where the cells of a view lie in the source image."""

import torch
from torch import Tensor


def cell_centers(box: Tensor, flip: Tensor, grid: int) -> Tensor:
    """Centres of the cells of a ``grid`` x ``grid`` map, in source pixels.

    Args:
        box: (B, 4) crop boxes x0, y0, x1, y1 in source pixels.
        flip: (B,) bool, True where the view was mirrored left to right after the crop.
        grid: Cells along each side.

    Returns:
        (B, grid*grid, 2) x, y; row-major, as the feature map is.
    """
    offsets = (torch.arange(grid, device=box.device, dtype=box.dtype) + 0.5) / grid
    across = torch.where(flip[:, None], 1 - offsets, offsets)
    x = box[:, 0:1] + across * (box[:, 2:3] - box[:, 0:1])
    y = box[:, 1:2] + offsets * (box[:, 3:4] - box[:, 1:2])
    return torch.stack(
        [x[:, None, :].expand(-1, grid, -1), y[:, :, None].expand(-1, -1, grid)], dim=-1
    ).flatten(1, 2)


def distances(query_centers: Tensor, key_centers: Tensor) -> Tensor:
    """(B, Q, 2), (B, K, 2) -> (B, Q, K), not by a matrix product: its rounding is of the order of
    a pixel for large images."""
    return torch.cdist(query_centers, key_centers, compute_mode="donot_use_mm_for_euclid_dist")


def near_cells(query_centers: Tensor, key_centers: Tensor) -> Tensor:
    """(B, Q, K) bool: the key cells that lie within one key cell of each query cell.

    Args:
        query_centers: (B, Q, 2) source pixels.
        key_centers: (B, K, 2) source pixels, row-major on a square grid.
    """
    grid = round(key_centers.shape[1] ** 0.5)
    cell = (key_centers[:, -1] - key_centers[:, 0]).abs() / max(grid - 1, 1)
    return distances(query_centers, key_centers) <= cell.norm(dim=1)[:, None, None]


def match_agreement(match: Tensor, near: Tensor) -> Tensor:
    """Share of feature matches that the crop geometry confirms; a health figure of DenseCL.

    A query cell counts when some key cell is near it, and its match is right when it is one.

    Args:
        match: (B, Q) indices of key cells.
        near: (B, Q, K), see ``near_cells``.

    Returns:
        A scalar in [0, 1]; 0 when no cell of any pair overlaps.
    """
    return near.gather(2, match.unsqueeze(2)).sum() / near.any(2).sum().clamp(min=1)


def match_chance(near: Tensor) -> Tensor:
    """The ``match_agreement`` of guesses: on a small grid much of the map is near.

    Args:
        near: (B, Q, K), see ``near_cells``.

    Returns:
        A scalar in [0, 1].
    """
    return near.sum() / near.shape[2] / near.any(2).sum().clamp(min=1)
