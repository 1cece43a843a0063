"""Labelled data for frozen evaluation: folders of classes, and the layouts that fine-tuning reads.

Classes, splits and what counts are the same as in ``tools/transfer.py``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from densessl.datasets.images import walk_images
from densessl.errors import UserError
from densessl.evaluation.metrics import IGNORED
from densessl.files import examples
from densessl.labels import coco, masks, voc
from densessl.labels.folders import (
    LAYOUTS,
    check_folder,
    choose_classes,
    overlap,
    places,
    read_splits,
)

FEWEST = 10
VAL_SHARE = 0.2
# Folders of these names alone, as they are or with a year or the like behind (val2017, test_set),
# are the parts of a data set, and no classes of images.
PARTS = {
    *("train", "training", "val", "valid", "validation", "test", "testing", "trainval"),
    "unlabeled",
    *("images", "image", "imgs", "img_dir", "jpegimages", "leftimg8bit", "gtfine", "gtcoarse"),
    *("annotations", "annotation", "ann_dir", "masks", "mask", "labels", "label"),
    *("segmentationclass", "segmentationobject"),
}
KINDS = {
    "images": "images with classes (a folder for each class, VOC xml or COCO json)",
    "objects": "boxes (VOC xml or COCO json)",
    "masks": "masks (VOC's SegmentationClass/, or images/ and masks/ or annotations/)",
}


class Sample(NamedTuple):
    """One labelled thing: an image, or a box in it."""

    path: str
    label: int | tuple[int, ...] | str  # class; or 1, 0, -1 of each class; or the mask's file
    box: tuple[float, float, float, float] | None = None  # x0 y0 x1 y1 in pixels; None is all of it


@dataclass(frozen=True)
class LabelledSet:
    """Samples of one kind.

    Attributes:
        classes: In the order of the labels.
        train: What the classifiers see.
        val: What they are judged on.
        values: (256,) uint8, class index of each value of a mask; None where there are no masks.
        note: What the user should know.
        drawn: Whether the seed chose what is learned from or judged on.
    """

    classes: list[str]
    train: list[Sample]
    val: list[Sample]
    values: np.ndarray | None = None
    note: str = ""
    drawn: bool = False

    def limited(self, most: int | None, seed: int) -> "LabelledSet":
        """With at most ``most`` samples to learn from, drawn by ``seed``, and all of ``val``."""
        if most is None or most >= len(self.train):
            return self
        drawn = np.sort(np.random.default_rng(seed).permutation(len(self.train))[:most])
        train = [self.train[i] for i in drawn]
        return replace(self, train=train, drawn=True)


@dataclass(frozen=True)
class LabelledData:
    """What a folder has, by the keys of ``KINDS``; only what was asked for is read."""

    name: str
    sets: dict[str, LabelledSet]


def read_data(
    folder: str | Path,
    kinds: Sequence[str] = tuple(KINDS),
    classes: list[str] | None = None,
    seed: int = 0,
) -> LabelledData:
    """Finds the layout of ``folder`` and reads its labels.

    Args:
        folder: The data set.
        kinds: What is wanted, where it is there.
        classes: The classes to use; by default all. For masks also ``INDEX=NAME``.
        seed: Of the split of a folder of classes that has no train and val.

    Raises:
        UserError: The folder is missing, of no known layout, or has none of ``kinds``; its labels
            cannot be used, or are fewer than ten.
    """
    folder = check_folder(folder)
    sets: dict[str, LabelledSet] = {}
    for place in places(folder):
        if {"images", "objects"} & {*kinds}:
            sets |= _from_voc(place, classes) or _from_coco(place, classes)
        if "masks" in kinds:
            sets |= _from_masks(place, classes)
        if sets:
            break
    else:
        if "images" in kinds:
            sets |= _from_class_folders(folder, classes, seed)
    sets = {kind: sets[kind] for kind in KINDS if kind in sets and kind in kinds}
    if not sets:
        names = examples(sorted(p.name for p in folder.iterdir()), most=8)
        raise UserError(
            f"{folder} has no layout known for {', '.join(kinds)}; it holds: {names}.",
            "Give a folder with one folder of images for each class (perhaps below train/ and "
            f"val/), {LAYOUTS['detection']}, or for masks {LAYOUTS['segmentation']}.",
        )
    for found in sets.values():
        if len(found.train) + len(found.val) < FEWEST or not (found.train and found.val):
            raise UserError(
                f"{folder} has {len(found.train)} labelled images to learn from and "
                f"{len(found.val)} to evaluate on, too few for a meaningful result.",
                f"Label {FEWEST} at the very least, some of them for each part.",
            )
    return LabelledData(folder.name, {kind: _noted(each) for kind, each in sets.items()})


def _noted(found: LabelledSet) -> LabelledSet:
    """With a note on images in both parts."""
    note = overlap(*((sample.path for sample in part) for part in (found.train, found.val)))
    return replace(found, note="; ".join(filter(None, (found.note, note))))


def _from_voc(folder: Path, classes: list[str] | None) -> dict[str, LabelledSet]:
    found = voc.find(folder, classes)
    return _boxed(*found) if found else {}


def _from_coco(folder: Path, classes: list[str] | None) -> dict[str, LabelledSet]:
    found = coco.find(folder, classes)
    if found is None:
        return {}
    chosen, *parts = found
    return _boxed(chosen, *(_coco_entries(part, chosen) for part in parts))


def _coco_entries(part: coco.CocoPart, classes: list[str]) -> list[dict]:
    """mmdet's entries of COCO's annotations."""
    number = {
        c["id"]: classes.index(c["name"])
        for c in part.content["categories"]
        if c["name"] in classes
    }
    entries = {
        image["id"]: dict(img_path=str(part.images / image["file_name"]), instances=[])
        for image in part.content["images"]
    }
    for item in part.annotations:
        x, y, width, height = item["bbox"]
        if width > 0 and height > 0:
            entries[item["image_id"]]["instances"].append(
                dict(
                    bbox=(x, y, x + width, y + height),
                    bbox_label=number[item["category_id"]],
                    ignore_flag=int(bool(item.get("iscrowd"))),
                )
            )
    return list(entries.values())


def _boxed(classes: list[str], train: list[dict], val: list[dict]) -> dict[str, LabelledSet]:
    """Images by the classes they show, and the boxes one by one."""
    splits = (train, val)
    images = [[_shown(entry, len(classes)) for entry in split] for split in splits]
    objects = [
        [
            Sample(entry["img_path"], box["bbox_label"], tuple(box["bbox"]))
            for entry in split
            for box in entry["instances"]
            if not box["ignore_flag"]
        ]
        for split in splits
    ]
    return dict(images=LabelledSet(classes, *images), objects=LabelledSet(classes, *objects))


def _shown(entry: dict, num_classes: int) -> Sample:
    """VOC's image classification: an object marked difficult says neither yes nor no."""
    shown = [0] * num_classes
    for box in entry["instances"]:
        label = box["bbox_label"]
        shown[label] = (shown[label] or -1) if box["ignore_flag"] else 1
    return Sample(entry["img_path"], tuple(shown))


def _from_masks(folder: Path, classes: list[str] | None) -> dict[str, LabelledSet]:
    found = masks.find(folder, classes)
    if found is None:
        return {}
    values = np.full(256, IGNORED, np.uint8)
    for value, index in found.indices_of.items():
        values[int(value)] = index
    train, val = (
        [Sample(entry["img_path"], entry["seg_map_path"]) for entry in split]
        for split in (found.train, found.val)
    )
    note = found.note.removeprefix("; ")
    return dict(masks=LabelledSet(found.classes, train, val, values, note))


def _from_class_folders(
    folder: Path, classes: list[str] | None, seed: int
) -> dict[str, LabelledSet]:
    """ImageNet's layout, or class folders without a split, which is then drawn class by class."""
    splits = read_splits(folder, "")
    if splits is None:
        files = _by_class(folder)
        train, val = {}, {}
        for number, (name, images) in enumerate(files.items()):
            order = np.random.default_rng((seed, number)).permutation(len(images))
            count = max(1, round(VAL_SHARE * len(images))) if len(images) > 1 else 0
            val[name] = [images[i] for i in sorted(order[:count])]
            train[name] = [images[i] for i in sorted(order[count:])]
    else:
        train, val = (_by_class(folder / split) for split in splits)
    if all(_is_part(name.lower()) for name in (*train, *val)):
        return {}
    unknown = [name for name in val if name not in train]
    if unknown and not classes:
        raise UserError(
            f"{folder} has classes in its evaluation part that its training part lacks: "
            f"{examples(unknown)}.",
            "Use the same class folders for both parts, or name the classes with --classes.",
        )
    chosen = choose_classes(list(train), classes, str(folder))
    if len(chosen) < 2:
        raise UserError(
            f"{folder} has one class, {examples(chosen)}.",
            "Give the folder in which each class has a folder of its own.",
        )
    train, val = (
        [Sample(path, number) for number, name in enumerate(chosen) for path in split.get(name, ())]
        for split in (train, val)
    )
    single = [name for name in chosen if sum(chosen[s.label] == name for s in train + val) == 1]
    note = f"only one image, never judged: {examples(single)}" if single else ""
    return dict(images=LabelledSet(chosen, train, val, note=note, drawn=splits is None))


def _is_part(name: str) -> bool:
    return name in PARTS or re.split(r"[\d_-]", name)[0] in PARTS


def _by_class(folder: Path) -> dict[str, list[str]]:
    """Class -> its images, for each folder that has any."""
    found = {
        part.name: [str(part / name) for name in walk_images(part)]
        for part in sorted(folder.iterdir())
        if part.is_dir() and not part.name.startswith(".")
    }
    return {name: images for name, images in found.items() if images}
