"""Segmentation masks as PNGs of class indices."""

import re
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from densessl.errors import UserError
from densessl.files import examples
from densessl.labels.folders import (
    check_size,
    choose_classes,
    index_images,
    read_ids,
    read_lines,
    read_splits,
)

IGNORED = 255
VOC_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
).split()
# Images and masks: ours, ADE20K's, mmseg's.
FOLDERS = (("images", "masks"), ("images", "annotations"), ("img_dir", "ann_dir"))
NAME_FILES = ("classes.txt", "labels.txt", "labelmap.txt")
# CVAT's labelmap.txt has a colour, parts and actions behind each name.
COLOURED = re.compile(r"(.+?):\s*(\d+\s*,\s*\d+\s*,\s*\d+)?\s*(:.*)?")
# A class seen in fewer evaluation images than both of these makes mIoU a matter of luck.
RARE_IMAGES, RARE_SHARE = 20, 0.05
# What that means for a class of --classes that the training or the evaluation masks lack.
ABSENT = (
    "in no training mask, never learned",
    "in no evaluation mask, an IoU of 0 once a pixel is taken for it",
)


class MaskPairs(NamedTuple):
    """Images with their masks, and what the masks' values mean."""

    classes: list[str]
    indices_of: dict[str, int]  # each value of the masks, as text -> class index, or IGNORED
    train: list[dict]  # of img_path, seg_map_path and mask_crc32
    val: list[dict]
    chance: str  # what always answering the commonest class scores
    note: str  # which classes are left out, or in one part alone


def find(folder: Path, classes: list[str] | None) -> MaskPairs | None:
    """Images and masks if ``folder`` has mask PNGs in a known layout, else None.

    Raises:
        UserError: It has, but its labels cannot be used.
    """
    pairs = _voc_pairs(folder) or _folder_pairs(folder)
    if pairs is None:
        return None
    counts, pixels = zip(*map(_count_values, pairs), strict=True)
    values = sorted((set(counts[0]) | set(counts[1])) - {IGNORED})
    if values in ([], [0]) and any(IGNORED in count for count in counts):
        found = "0 and 255" if values else "255"
        raise UserError(
            f'The masks of {folder} hold only {found}, and 255 means "ignore".',
            "Write the classes as 0, 1, 2 ...: of masks of black and white the white as 1.",
        )
    names, note = _choose(folder, values, counts, len(pairs[1]), classes)
    for part, seen in zip(("training", "evaluation"), counts, strict=True):
        if not seen.keys() & names.keys():
            raise UserError(
                f"The {part} masks of {folder} show none of the classes "
                f"{', '.join(names.values())}.",
                "Check them, or --classes.",
            )
    for seen, words in zip(counts, ABSENT, strict=True):
        absent = [name for value, name in names.items() if value not in seen]
        note += f"; {words}: {', '.join(absent)}" if absent else ""
    index = {value: number for number, value in enumerate(names)}
    indices_of = {str(value): index.get(value, IGNORED) for value in values}
    return MaskPairs(list(names.values()), indices_of, *pairs, _chance(names, *pixels), note)


def _voc_pairs(folder: Path) -> tuple[list[dict], list[dict]] | None:
    masks, lists = folder / "SegmentationClass", folder / "ImageSets" / "Segmentation"
    if not (masks.is_dir() and lists.is_dir() and (folder / "JPEGImages").is_dir()):
        return None
    splits = read_splits(lists, ".txt")
    if splits is None:
        raise UserError(
            f"{lists} has no train.txt with val.txt.",
            "Write both lists: one image name a line, without suffix.",
        )
    images = index_images(folder / "JPEGImages")
    ids = [read_ids(lists / f"{split}.txt", images) for split in splits]
    return tuple(_pairs(images, masks, names) for names in ids)


def _folder_pairs(folder: Path) -> tuple[list[dict], list[dict]] | None:
    found = ((folder / one, folder / other) for one, other in FOLDERS)
    images, masks = next((pair for pair in found if all(p.is_dir() for p in pair)), (None, None))
    if images is None:
        return None
    splits = read_splits(images, "")
    if splits is None or not all((masks / split).is_dir() for split in splits):
        if masks.name == "annotations":  # of COCO's json, most likely
            return None
        raise UserError(
            f"{folder} has {images.name}/ and {masks.name}/ but not train/ and val/ in both.",
            f"Sort them into {images.name}/train, {images.name}/val, {masks.name}/train and "
            f"{masks.name}/val.",
        )
    result = []
    for split in splits:
        found = index_images(images / split)
        if not found:
            raise UserError(f"{images / split} has no images.", "Put the images there.")
        result.append(_pairs(found, masks / split, sorted(found)))
    return tuple(result)


def _pairs(images: dict[str, Path], masks: Path, names: list[str]) -> list[dict]:
    for what, absent in (
        ("image", [name for name in names if name not in images]),
        ("mask (.png)", [name for name in names if not (masks / f"{name}.png").is_file()]),
    ):
        if absent:
            raise UserError(
                f"{len(absent)} of {len(names)} images listed for {masks} have no {what}: "
                f"{examples(absent)}.",
                "Add the missing files or take the names out.",
            )
    return [
        dict(img_path=str(images[name]), seg_map_path=str(masks / f"{name}.png")) for name in names
    ]


def _count_values(entries: list[dict]) -> tuple[Counter, Counter]:
    """Value -> number of masks that hold it, and of pixels. Each entry gets its mask's checksum."""
    masks: Counter = Counter()
    pixels_of: Counter = Counter()
    for entry in entries:
        path = entry["seg_map_path"]
        try:
            with Image.open(path) as image:
                pixels, size, mode = np.asarray(image), image.size, image.mode
        except (OSError, SyntaxError, ValueError) as error:  # Pillow's, for a broken PNG
            raise UserError(f"The mask {path} cannot be read: {error}.", "Replace it.") from error
        if pixels.ndim != 2 or pixels.dtype != np.uint8:
            raise UserError(
                f"The mask {path} has the mode {mode}, not class indices in 8 bits.",
                "Save masks as 8-bit gray or palette PNGs whose values are the class numbers.",
            )
        check_size(f"The mask {path}", size, Path(entry["img_path"]))
        entry["mask_crc32"] = zlib.crc32(pixels)
        sums = np.bincount(pixels.ravel())
        held = np.flatnonzero(sums).tolist()
        masks.update(held)
        pixels_of.update(dict(zip(held, sums[held].tolist(), strict=True)))
    return masks, pixels_of


def _chance(names: dict[int, str], train: Counter, val: Counter) -> str:
    """What it scores to answer the class of most training pixels everywhere; by value -> pixels."""
    answer = max(names, key=lambda value: train[value])
    right, seen = val[answer], {value for value in names if val[value]}
    share = 100 * right / sum(val[value] for value in seen)  # its IoU too; that of others is 0
    mean = share / len(seen | {answer})
    return f"{names[answer]} everywhere would score mIoU {mean:.1f}, aAcc {share:.1f}"


def _choose(
    folder: Path,
    values: list[int],
    counts: list[Counter],
    val_images: int,
    wanted: list[str] | None,
) -> tuple[dict[int, str], str]:
    """Mask value -> class name of the classes to use, and a note about the others."""
    by_index = bool(wanted) and all("=" in item for item in wanted)
    known = _names(folder, values, others=by_index)
    if wanted:
        kept = _wanted(folder, values, known, wanted)
        if len(kept) < 2:
            raise UserError(
                f"--classes names fewer than two classes of {folder}: {', '.join(kept.values())}.",
                f"Name the background as well; the masks have {', '.join(known.values())}.",
            )
        others = [name for value, name in known.items() if value not in kept]
        return kept, f"; not asked for and ignored: {', '.join(others)}" if others else ""
    train, val = counts
    unseen = [known[v] for v in values if v not in train]
    if unseen and len(unseen) == len([v for v in values if v in val]):
        raise UserError(
            f"No class of the evaluation masks of {folder} occurs in training.",
            "Check that both use the same indices.",
        )
    kept, rare = {}, []
    for value in values:
        seen = val[value]
        if value in train and (seen >= RARE_IMAGES or seen >= RARE_SHARE * val_images):
            kept[value] = known[value]
        else:
            rare.append(known[value])
    if len(kept) < 2:
        raise UserError(
            f"The masks of {folder} hold fewer than two classes that can be evaluated.",
            f"Found in training: {', '.join(known[v] for v in values if v in train)}. Give more "
            "labelled images, or name the classes with --classes INDEX=NAME ...",
        )
    note = f"; too rare to evaluate and ignored: {', '.join(rare)}" if rare else ""
    return kept, note


def _names(folder: Path, values: list[int], others: bool) -> dict[int, str]:
    """Value -> name; with ``others`` the file may leave some without one."""
    for name in NAME_FILES:
        path = folder / name
        if path.is_file():
            lines = filter(None, map(str.strip, read_lines(path)))
            parts = [COLOURED.fullmatch(line) or [line] * 2 for line in lines if line[0] != "#"]
            names = [part[1].strip() for part in parts]
            if others:
                names += [f"class {value}" for value in range(len(names), max(values) + 1)]
            if len(names) <= max(values):
                raise UserError(
                    f"{path} names {len(names)} classes, but the masks use index {max(values)}.",
                    "Write one name a line, the first for index 0.",
                )
            used = {value: names[value] for value in values}
            twice = [name for name, times in Counter(used.values()).items() if times > 1]
            if twice and not others:
                raise UserError(
                    f"{path} gives several indices of the masks the name {examples(twice)}.",
                    "Give each a name of its own; classes cannot be merged here.",
                )
            return used
    if _looks_like_voc(folder) and max(values) < len(VOC_NAMES):
        return {value: VOC_NAMES[value] for value in values}
    return {value: "background" if value == 0 else f"class {value}" for value in values}


def _looks_like_voc(folder: Path) -> bool:
    """VOC's 20 classes: its folders, and no annotation that names another class."""
    if not (folder / "SegmentationClass").is_dir():
        return False
    sample = sorted((folder / "Annotations").glob("*.xml"))[:50]
    for path in sample:
        text = path.read_text(errors="replace")
        for part in text.split("<object>")[1:]:
            name = part.partition("<name>")[2].partition("</name>")[0].strip()
            if name not in VOC_NAMES:
                return False
    return bool(sample)


def _wanted(
    folder: Path, values: list[int], known: dict[int, str], wanted: list[str]
) -> dict[int, str]:
    if all("=" in item for item in wanted):
        result = {}
        for item in wanted:
            text, _, name = item.partition("=")
            if not text.isdigit() or int(text) not in values:
                raise UserError(
                    f"--classes {item}: the masks of {folder} have no index {text}.",
                    f"Their indices are {', '.join(map(str, values))}.",
                )
            if int(text) in result or name in result.values():
                raise UserError(
                    f"--classes {item}: the index or the name is there twice.",
                    "Give each index a name of its own; classes cannot be merged here.",
                )
            result[int(text)] = name
        return dict(sorted(result.items()))
    names = choose_classes(list(known.values()), wanted, str(folder))
    return {value: name for value, name in known.items() if name in names}
