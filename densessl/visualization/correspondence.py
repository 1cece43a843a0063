"""Which cells of two views a backbone matches, and whether the crops' geometry agrees."""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch

from densessl.correspondence import (
    cell_centers,
    match_agreement,
    match_by_feature,
    match_chance,
    near_cells,
)
from densessl.datasets import collate_views
from densessl.evaluation.features import evaluating, load_frozen
from densessl.structures import SampleKey, ViewBatch
from densessl.transforms import MultiView
from densessl.transforms.decode import read_file
from densessl.transforms.functional import hflip
from densessl.visualization.pictures import grid_of_axes, named_if_broken, show, some_images

RIGHT, WRONG, ALONE = "#008a63", "#d55e00", "#9aa4af"
LEGEND = "green: the same place · orange: another one · grey: not in the second crop"
MOST = 64  # lines between two views


def show_correspondence(
    source,
    images: str | Path,
    count: int = 3,
    size: int = 224,
    stage: int = 3,
    which: str = "student",
    seed: int = 0,
    architecture: str | None = None,
    trust: bool = False,
) -> Figure:
    """A row for each image: two random crops, and a line from cells of the first to their matches.

    Green where the matched cell shows the same place of the image, within a cell; orange where it
    does not though another cell would; grey where the second crop does not have the place.

    Args:
        source: What ``load_frozen`` takes: a checkpoint, ``random`` or a module.
        images: A folder.
        count: Images, evenly spaced in the folder.
        size: Side of the crops in pixels.
        stage: Of the map, 0..3 = C2..C5.
        which: ``student`` or ``teacher``.
        seed: Of the crops and of random weights.
        architecture: See ``load_frozen``.
        trust: See ``load_frozen``.

    Raises:
        UserError: The checkpoint or an image cannot be used.
    """
    frozen = load_frozen(source, which, (stage,), architecture, seed, trust)
    make = MultiView([dict(preset="crop_flip", scale=(0.2, 1.0))] * 2, size)
    paths = some_images(images, count)
    samples = []
    for index, path in enumerate(paths):
        with named_if_broken(path):
            views, records = make(read_file(path), SampleKey(seed, 0, index))
        samples.append(ViewBatch(views, records, index, -1))
    batch = collate_views(samples).unpack()
    crops = [
        hflip(crop.permute(0, 3, 1, 2), record.flip).permute(0, 2, 3, 1)
        for crop, record in zip(batch.views, batch.records, strict=True)
    ]
    with evaluating(frozen.module):
        query, key = (frozen.maps(crop, (stage,)).cpu() for crop in crops)
    grid = query.shape[-1]
    match = match_by_feature(query, key)
    near = near_cells(*(cell_centers(each.box, each.flip, grid) for each in batch.records))

    figure, axes = grid_of_axes(len(paths), 2)
    figure.supxlabel(LEGEND, fontsize=7)
    whole = torch.tensor([[0.0, 0.0, size, size]])  # a crop's own pixels
    places = cell_centers(whole, torch.tensor([False]), grid)[0].tolist()
    step = -(-(grid**2) // MOST)
    for row, path in enumerate(paths):
        own = slice(row, row + 1)
        agreement = match_agreement(match[own], near[own])
        show(axes[row, 0], crops[0][row].numpy(), path.name)
        show(
            axes[row, 1],
            crops[1][row].numpy(),
            f"{agreement:.0%} confirmed, of guesses {match_chance(near[own]):.0%}",
        )
        for cell in range(0, grid**2, step):
            colour = ALONE
            if near[row, cell].any():
                colour = RIGHT if near[row, cell, match[row, cell]] else WRONG
            line = ConnectionPatch(
                xyA=places[cell],
                xyB=places[match[row, cell]],
                coordsA=axes[row, 0].transData,
                coordsB=axes[row, 1].transData,
                color=colour,
                linewidth=0.8,
                alpha=0.8,
            )
            figure.add_artist(line)
    return figure
