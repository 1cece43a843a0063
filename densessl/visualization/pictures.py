"""What the figures share: which images they show, and axes without ticks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from densessl.datasets.images import existing, walk_images
from densessl.errors import UserError
from densessl.lettering import plain, short
from densessl.numeric import spaced
from densessl.transforms.decode import ImageError

SIDE = 2.2  # inches of a picture


def some_images(folder: str | Path, count: int) -> list[Path]:
    """``count`` images below ``folder``, evenly spaced in the order of their names.

    Raises:
        UserError: The folder does not exist, or has no images.
    """
    root = existing(folder, "The image folder")
    names = walk_images(root)
    if not names:
        raise UserError(f"No images found in {root}.", "name the folder that they are in")
    return [root / names[index] for index in spaced(len(names), count)]


@contextmanager
def named_if_broken(path: str | Path) -> Iterator[None]:
    """Turns what is wrong with an image into advice."""
    try:
        yield
    except ImageError as error:
        raise UserError(
            f"{path} cannot be read: {error.reason}.",
            "take it out of the folder, or change --count",
        ) from error


def grid_of_axes(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    """A figure, and its (rows, columns) axes without ticks and frames."""
    figure = Figure(figsize=(SIDE * columns, SIDE * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for one in axes.flat:
        one.set_axis_off()
    return figure, axes


def show(axes: Axes, pixels: np.ndarray, title: str = "") -> None:
    """(H, W, 3) pixels, uint8 or 0..1, with a title."""
    axes.imshow(pixels, interpolation="nearest")
    axes.set_title(plain(short(title, 32)), fontsize=8)
