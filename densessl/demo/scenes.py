"""Renders the demo's data set: synthetic scenes in VOC's layout, the same bytes for a seed.

Layout of the folder::

    JPEGImages/*.jpg  Annotations/*.xml    VOC: boxes 1-based and inclusive
    SegmentationClass/*.png                VOC: class indices in a palette image, 255 is void
    ImageSets/{Main,Segmentation}/{train,val}.txt
    unlabelled/*.jpg                       for pretraining; no image of train or val
    labels.txt                             class names in index order, background first
    scenes.json                            the parameters
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from densessl.demo.painting import CLASSES, Scene, paint_scene
from densessl.errors import UserError

VOID = 255
_MARKER = "scenes.json"
_FORMAT = "densessl-scenes/1"


def render_scenes(
    out_dir: str | Path,
    unlabelled: int = 1200,
    train: int = 240,
    val: int = 80,
    size: int = 128,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Renders a data set of synthetic scenes; returns at once if the folder already holds it.

    The folder appears under its name only when it is complete: a run that was stopped leaves
    ``<out_dir>.partial``, which the next one replaces.

    Args:
        out_dir: Folder to create.
        unlabelled: Number of images for pretraining.
        train: Number of labelled images for training.
        val: Number of labelled images for validation.
        size: Side of the square images in pixels, 32 or more.
        seed: Each image is painted from (seed, split, index) alone.
        progress: Called as ``progress(done, total)`` after every image.

    Returns:
        ``out_dir``.

    Raises:
        UserError: A count or the size is out of range, or ``out_dir`` holds something else.
    """
    counts = {"unlabelled": unlabelled, "train": train, "val": val}
    if min(counts.values()) < 0 or sum(counts.values()) == 0 or size < 32:
        raise UserError(
            f"Cannot render scenes of size {size} in the numbers {counts}.",
            "Use a size of 32 or more and counts of 0 or more, not all of them 0.",
        )
    out_dir = Path(out_dir)
    parameters = {"format": _FORMAT, **counts, "size": size, "seed": seed}
    if _holds(out_dir, parameters):
        return out_dir

    partial = out_dir.with_name(out_dir.name + ".partial")
    if partial.exists():
        _remove_partial(partial)
    partial.mkdir(parents=True)
    (partial / "rendering.txt").write_text(
        "An unfinished set of scenes; the next run replaces it.\n"
    )
    _write_all(partial, counts, size, seed, progress)
    (partial / "rendering.txt").unlink()
    (partial / _MARKER).write_text(json.dumps(parameters, indent=1) + "\n")
    if out_dir.exists():
        out_dir.rmdir()  # empty: `_holds` made sure of it
    partial.rename(out_dir)
    return out_dir


def _holds(out_dir: Path, parameters: dict) -> bool:
    """Whether the folder holds these very scenes; raises if it holds anything else."""
    if not out_dir.exists():
        return False
    marker = out_dir / _MARKER
    if marker.is_file():
        try:
            found = json.loads(marker.read_text())
        except ValueError:
            found = None
        if found == parameters:
            return True
        raise UserError(
            f"{out_dir} holds scenes rendered with other parameters: {found}, wanted {parameters}.",
            "Name another folder, or remove this one if it is no longer needed.",
        )
    if not out_dir.is_dir() or any(out_dir.iterdir()):
        raise UserError(
            f"{out_dir} exists and does not hold rendered scenes.",
            "Name a folder that does not exist yet; nothing was overwritten.",
        )
    return False


def _remove_partial(partial: Path) -> None:
    if not (partial / "rendering.txt").is_file() and not (partial / _MARKER).is_file():
        raise UserError(
            f"{partial} is in the way and was not made by this program.", "Move it elsewhere."
        )
    shutil.rmtree(partial)


def _write_all(
    root: Path,
    counts: dict[str, int],
    size: int,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "unlabelled"):
        (root / folder).mkdir()
    (root / "labels.txt").write_text("\n".join(("background", *CLASSES)) + "\n")
    total, done = sum(counts.values()), 0
    first = 1
    for split in ("train", "val"):
        names = [f"{first + i:06d}" for i in range(counts[split])]
        for name, scene in zip(names, _scenes(split, counts[split], size, seed), strict=True):
            _save_jpeg(scene, root / "JPEGImages" / f"{name}.jpg")
            _segmentation_png(scene).save(root / "SegmentationClass" / f"{name}.png")
            boxes = [_box(scene.ids == k + 1) for k in range(len(scene.labels))]
            (root / "Annotations" / f"{name}.xml").write_text(_voc_xml(name, scene, boxes))
            done += 1
            if progress:
                progress(done, total)
        first += counts[split]
        for task in ("Main", "Segmentation"):
            (root / "ImageSets" / task).mkdir(parents=True, exist_ok=True)
            (root / "ImageSets" / task / f"{split}.txt").write_text(
                "".join(f"{n}\n" for n in names)
            )
    for i, scene in enumerate(_scenes("unlabelled", counts["unlabelled"], size, seed)):
        _save_jpeg(scene, root / "unlabelled" / f"u{i + 1:06d}.jpg")
        done += 1
        if progress:
            progress(done, total)


def _scenes(split: str, count: int, size: int, seed: int) -> Iterator[Scene]:
    stream = ("train", "val", "unlabelled").index(split)
    for index in range(count):
        yield paint_scene(np.random.default_rng([seed, stream, index]), size)


def _save_jpeg(scene: Scene, path: Path) -> None:
    Image.fromarray(scene.image).save(path, quality=92)


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The tight box x, y, width, height (0-based) of a mask (size, size)."""
    xs, ys = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(xs[0]), int(ys[0]), int(xs[-1] - xs[0] + 1), int(ys[-1] - ys[0] + 1)


def _segmentation_png(scene: Scene) -> Image.Image:
    """Class indices in a palette image, with one void pixel behind every outline, as VOC has it."""
    padded = np.pad(scene.ids, 1)
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    classes = np.array([0, *(label + 1 for label in scene.labels)], np.uint8)[scene.ids]
    # The front object keeps its pixels whole: only what lies behind it gives way.
    classes[np.maximum.reduce(neighbours) > scene.ids] = VOID
    image = Image.fromarray(classes)
    image.putpalette(_voc_palette())
    return image


def _voc_palette() -> bytes:
    """VOC's 256 colours: an index's bits dealt out to red, green, blue, from the top bit down."""
    palette = np.zeros((256, 3), np.uint8)
    index = np.arange(256)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return palette.tobytes()


def _voc_xml(name: str, scene: Scene, boxes: list[tuple[int, int, int, int]]) -> str:
    height, width = scene.ids.shape
    lines = [
        "<annotation>",
        "\t<folder>scenes</folder>",
        f"\t<filename>{name}.jpg</filename>",
        "\t<source>\n\t\t<database>densessl scenes</database>"
        "\n\t\t<annotation>densessl scenes</annotation>\n\t\t<image>rendered</image>\n\t</source>",
        f"\t<size>\n\t\t<width>{width}</width>\n\t\t<height>{height}</height>"
        "\n\t\t<depth>3</depth>\n\t</size>",
        "\t<segmented>1</segmented>",
    ]
    for label, truncated, occluded, (x, y, w, h) in zip(
        scene.labels, scene.truncated, scene.occluded, boxes, strict=True
    ):
        lines.append(
            f"\t<object>\n\t\t<name>{CLASSES[label]}</name>\n\t\t<pose>Unspecified</pose>"
            f"\n\t\t<truncated>{int(truncated)}</truncated>\n\t\t<occluded>{int(occluded)}</occluded>"
            "\n\t\t<difficult>0</difficult>"
            f"\n\t\t<bndbox>\n\t\t\t<xmin>{x + 1}</xmin>\n\t\t\t<ymin>{y + 1}</ymin>"
            f"\n\t\t\t<xmax>{x + w}</xmax>\n\t\t\t<ymax>{y + h}</ymax>\n\t\t</bndbox>\n\t</object>"
        )
    return "\n".join([*lines, "</annotation>\n"])
