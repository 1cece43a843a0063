"""Boxes in PASCAL VOC's layout."""

import math
import xml.etree.ElementTree as ET
from pathlib import Path

from densessl.errors import UserError
from densessl.labels.folders import (
    check_size,
    choose_classes,
    index_images,
    read_ids,
    read_splits,
)


def find(
    folder: Path, classes: list[str] | None
) -> tuple[list[str], list[dict], list[dict]] | None:
    """Classes, training and evaluation images if ``folder`` has VOC's layout, else None.

    Each image is mmdet's dict of ``img_path`` and ``instances``.

    Raises:
        UserError: It has, but its labels cannot be used.
    """
    lists = folder / "ImageSets" / "Main"
    if not all(p.is_dir() for p in (folder / "JPEGImages", folder / "Annotations", lists)):
        return None
    splits = read_splits(lists, ".txt")
    if splits is None:
        raise UserError(
            f"{lists} has no train.txt with val.txt (or trainval.txt with test.txt).",
            "Write both lists: one image name a line, without suffix.",
        )
    images = index_images(folder / "JPEGImages")
    train, val = (
        [_read_entry(folder, images, name) for name in read_ids(lists / f"{split}.txt", images)]
        for split in splits
    )
    _check_inside(folder, [*train, *val])
    found = sorted({box["name"] for entry in train for box in entry["boxes"]})
    if not found:
        raise UserError(
            f"The training images of {folder} have no boxes.", "Check Annotations/*.xml."
        )
    unknown = sorted({box["name"] for entry in val for box in entry["boxes"]} - set(found))
    if unknown and not classes:
        raise UserError(
            f"The evaluation images of {folder} have classes that no training image shows: "
            f"{', '.join(unknown)}.",
            "Correct the labels, or name the classes to use with --classes.",
        )
    chosen = choose_classes(found, classes, str(folder))
    train, val = _labelled(train, chosen), _labelled(val, chosen)
    for part, entries in (("training", train), ("evaluation", val)):
        if not any(map(has_object, entries)):
            raise UserError(
                f"The {part} images of {folder} have no boxes of the classes {', '.join(chosen)} "
                "that count; those marked difficult do not.",
                f"Check the {part} list in ImageSets/Main and its annotations.",
            )
    return chosen, train, val


def has_object(entry: dict) -> bool:
    """Whether an image has a box of the chosen classes that is not marked difficult."""
    return any(not box["ignore_flag"] for box in entry["instances"])


def _read_entry(folder: Path, images: dict[str, Path], name: str) -> dict:
    path = folder / "Annotations" / f"{name}.xml"
    if name not in images:
        raise UserError(
            f"{folder / 'JPEGImages'} has no image '{name}', which ImageSets names.",
            "Add the image or take its name out of the list.",
        )
    if not path.is_file():
        raise UserError(
            f"The annotation {path} is missing.",
            "Add it (an image without objects has one without <object>), or take the image out of "
            "the list.",
        )
    try:
        root = ET.parse(path).getroot()
        size = _read_size(root)
        boxes = [_read_box(node) for node in root.iter("object")]
    except (ET.ParseError, TypeError, OverflowError, ValueError, AttributeError, OSError) as error:
        raise UserError(
            f"The annotation {path} cannot be read: {error}.",
            "It must be VOC's XML: <object> with <name> and <bndbox> of xmin, ymin, xmax, ymax.",
        ) from error
    width, height = check_size(f"<size> of {path}", size, images[name])
    return dict(img_path=str(images[name]), img_id=name, width=width, height=height, boxes=boxes)


def _check_inside(folder: Path, entries: list[dict]) -> None:
    outside = []
    for entry in entries:
        width, height = entry["width"], entry["height"]
        for left, top, right, bottom in (box["bbox"] for box in entry["boxes"]):
            if left >= width or top >= height or right < 0 or bottom < 0:
                corners = ", ".join(f"{corner + 1:g}" for corner in (left, top, right, bottom))
                outside.append(f"{entry['img_id']}.xml: {corners} in {width}x{height} pixels")
    if outside:
        shown = "\n  ".join(outside[:10])
        raise UserError(
            f"Boxes outside of their images in {folder / 'Annotations'}, {len(outside)} in all:\n"
            f"  {shown}",
            "Correct them, or take them out.",
        )


def _read_size(root: ET.Element) -> tuple[int, int] | None:
    """Width and height; None where a labelling tool left them out or at 0."""
    node = root.find("size")
    if node is None:
        return None
    size = tuple(int(float(node.findtext(side))) for side in ("width", "height"))
    return size if all(size) else None


def _read_box(node: ET.Element) -> dict:
    box = node.find("bndbox")
    # VOC counts pixels from 1.
    corners = [float(box.findtext(key)) - 1 for key in ("xmin", "ymin", "xmax", "ymax")]
    # Both corners are inside: a box of one pixel has them in one place.
    if not all(map(math.isfinite, corners)):
        raise ValueError(f"a box whose corners are no numbers: {corners}")
    if corners[2] < corners[0] or corners[3] < corners[1]:
        raise ValueError(f"a box whose corners are the wrong way round: {corners}")
    corners[2:] = (max(corners[end], corners[end - 2] + 1) for end in (2, 3))  # mmdet needs an area
    name = (node.findtext("name") or "").strip()
    if not name:
        raise ValueError("an <object> without a name")
    difficult = int(node.findtext("difficult") or 0)
    return dict(bbox=corners, name=name, ignore_flag=int(difficult > 0))


def _labelled(entries: list[dict], classes: list[str]) -> list[dict]:
    """mmdet's entries, with the boxes of the chosen classes."""
    index = {name: number for number, name in enumerate(classes)}
    result = []
    for entry in entries:
        instances = [
            dict(bbox=b["bbox"], bbox_label=index[b["name"]], ignore_flag=b["ignore_flag"])
            for b in entry["boxes"]
            if b["name"] in index
        ]
        plain = {key: value for key, value in entry.items() if key != "boxes"}
        result.append(dict(**plain, instances=instances))
    return result
