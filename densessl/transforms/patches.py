"""A view cut into patches, one from each cell of a grid, each with a record of its own."""

import random

import torch

from densessl.structures import ViewRecord


def cut_patches(
    pixels: torch.Tensor,
    record: ViewRecord,
    grid: int,
    cell: int,
    stride: int,
    patch: int,
    shuffle: bool,
    rng: random.Random,
) -> list[tuple[torch.Tensor, ViewRecord]]:
    """Cuts a patch at a random place out of each cell of a view.

    The order is row by row of the view as it is after its flip, which the device still has to
    make, patch by patch; or a random one.

    Args:
        pixels: (S, S, 3) uint8, not flipped yet.
        record: The view's, of plain numbers; what it says besides the box holds for each patch.
        grid: Cells along each side.
        cell: Side of a cell.
        stride: Pixels from one cell to the next; less than ``cell`` makes them overlap.
        patch: Side of a patch, at most a cell's.
        shuffle: Random order.
        rng: Of this view.

    Returns:
        ``grid * grid`` patches (patch, patch, 3) and their records.
    """
    side = len(pixels)
    free = cell - patch + 1
    corners = [(rng.randrange(free), rng.randrange(free)) for _ in range(grid * grid)]
    order = rng.sample(range(grid * grid), grid * grid)
    made = []
    for place in order if shuffle else range(grid * grid):
        row, column = divmod(place, grid)
        if record.flip:
            column = grid - 1 - column
        y, x = (
            stride * k + offset for k, offset in zip((row, column), corners[place], strict=True)
        )
        left, top, right, bottom = record.box
        wide, high = (right - left) / side, (bottom - top) / side
        box = (left + x * wide, top + y * high)
        box += (left + (x + patch) * wide, top + (y + patch) * high)
        cut = pixels[y : y + patch, x : x + patch].contiguous()
        made.append((cut, record._replace(box=box)))
    return made
