"""Tiny labelled folders for tests: classes that differ in colour, so that any net tells them."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 220), "green": (50, 200, 60), "red": (220, 50, 40)}


def write_class(folder: Path, name: str, count: int, seed: int = 0) -> None:
    """``count`` noisy images of one colour."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        noise = generator.integers(-40, 40, (30, 44, 3))
        pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def make_classes(root: Path, counts: tuple[int, ...] = (6, 6, 6)) -> Path:
    """A folder of class folders, without a split."""
    for (name, count), seed in zip(
        zip(COLOURS, counts, strict=True), range(len(counts)), strict=True
    ):
        write_class(root / name, name, count, seed)
    return root


def make_split_classes(root: Path) -> Path:
    """ImageNet's layout: train and val."""
    for part, count, seed in (("train", 4, 0), ("val", 2, 9)):
        for name in COLOURS:
            write_class(root / part / name, name, count, seed)
    return root
