"""What a backbone's cells tell apart: their three largest components as colours."""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from densessl.evaluation.data import Sample
from densessl.evaluation.features import centre_crop, evaluating, load_frozen
from densessl.visualization.pictures import grid_of_axes, named_if_broken, show, some_images


def show_features(
    sources: dict,
    images: str | Path,
    count: int = 4,
    size: int = 224,
    stage: int = 3,
    which: str = "student",
    seed: int = 0,
    architecture: str | None = None,
    trust: bool = False,
) -> Figure:
    """A row for each image: the image, and each backbone's map of it in false colours.

    Cells of one colour have similar features, within a backbone: the components are those of all
    its cells here. Colours of different backbones do not compare.

    Args:
        sources: Name -> what ``load_frozen`` takes: a checkpoint, ``random`` or a module.
        images: A folder.
        count: Images, evenly spaced in the folder.
        size: Side of the images' middle in pixels.
        stage: Of the map, 0..3 = C2..C5.
        which: ``student`` or ``teacher``.
        seed: Of random weights.
        architecture: See ``load_frozen``.
        trust: See ``load_frozen``.

    Raises:
        UserError: A checkpoint or an image cannot be used.
    """
    paths = some_images(images, count)
    middles = []
    for path in paths:
        with named_if_broken(path):
            middles.append(centre_crop(Sample(str(path), 0), size))
    pixels = torch.stack(middles)
    figure, axes = grid_of_axes(len(paths), 1 + len(sources))
    for row, path in enumerate(paths):
        show(axes[row, 0], pixels[row].numpy(), path.name)
    for column, (name, source) in enumerate(sources.items(), 1):
        frozen = load_frozen(source, which, (stage,), architecture, seed, trust)
        with evaluating(frozen.module):
            colours = components(frozen.maps(pixels, (stage,)).cpu())
        for row in range(len(paths)):
            show(axes[row, column], colours[row].numpy(), name if row == 0 else "")
    return figure


def components(maps: Tensor) -> Tensor:
    """The three largest principal components of all cells, each stretched to 0..1.

    Args:
        maps: (B, C, H, W).

    Returns:
        (B, H, W, 3) float64; a component's sign is that in which its cubes sum to more than 0.
    """
    cells = maps.permute(0, 2, 3, 1).flatten(0, 2).double()
    cells = cells - cells.mean(0)
    axes = torch.linalg.eigh(cells.T @ cells).eigenvectors[:, -3:].flip(1)
    values = cells @ axes
    values = values * values.pow(3).sum(0).sign()
    low, high = values.quantile(0.01, 0), values.quantile(0.99, 0)
    stretched = ((values - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    return stretched.view(len(maps), *maps.shape[2:], 3)
