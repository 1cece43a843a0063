"""Boxes and instance masks in COCO's json."""

import json
from pathlib import Path
from typing import NamedTuple

from densessl.errors import UserError
from densessl.files import examples
from densessl.labels.coco_masks import is_mask, is_number
from densessl.labels.folders import (
    SPLITS,
    check_size,
    choose_classes,
    read_splits,
)

NEEDED = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area"),
    "categories": ("id", "name"),
}


class CocoPart(NamedTuple):
    """One json with the folder of its images."""

    file: Path
    images: Path
    content: dict
    annotations: list[dict]  # those of the chosen classes


def find(
    folder: Path, classes: list[str] | None, masks: bool = False
) -> tuple[list[str], CocoPart, CocoPart] | None:
    """Classes, training and evaluation part if ``folder`` has COCO's layout, else None.

    Args:
        folder: The data set.
        classes: The classes to use; by default all.
        masks: Whether each object must have its mask.

    Raises:
        UserError: It has, but its labels cannot be used.
    """
    files = _find_json(folder)
    if files is None:
        return None
    train, val = (_load(path) for path in files)
    used = {a["category_id"] for a in train["annotations"]}
    found = [c["name"] for c in train["categories"] if c["id"] in used]
    if not found:
        raise UserError(f"{files[0]} has no annotations.", "Label some training images first.")
    # In the same order: mmdet numbers the classes of each file by its own.
    lists = [[(c["id"], c["name"]) for c in part["categories"]] for part in (train, val)]
    if lists[0] != lists[1]:
        raise UserError(
            f"{files[0].name} and {files[1].name} do not have the same categories.",
            "Give both files the same list of categories (id and name), in the same order.",
        )
    names = [name for _, name in lists[0]]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(
            f"{files[0].name} has several categories named {examples(sorted(twice))}.",
            "Give each category a name of its own, or make them one.",
        )
    only_val = {a["category_id"] for a in val["annotations"]} - used
    unknown = [c["name"] for c in val["categories"] if c["id"] in only_val]
    if unknown and not classes:
        raise UserError(
            f"{files[1].name} has classes that no training image shows: {examples(unknown)}.",
            "Correct the labels, or name the classes to use with --classes.",
        )
    chosen = choose_classes(found, classes, str(folder))
    ids = {c["id"] for c in train["categories"] if c["name"] in chosen}
    parts = [
        CocoPart(
            path,
            _image_folder(folder, content, path),
            content,
            _annotations(content, path, ids, masks),
        )
        for content, path in zip((train, val), files, strict=True)
    ]
    for part in parts:
        for image in part.content["images"]:
            what = f"The entry of {image['file_name']} in {part.file}"
            check_size(what, (image["width"], image["height"]), part.images / image["file_name"])
    return chosen, *parts


def _find_json(folder: Path) -> tuple[Path, Path] | None:
    for place, pattern in (
        ("annotations", "instances_{}*.json"),
        ("annotations", "*{}*.json"),
        ("coco", "instances_{}*.json"),
        (".", "*{}*.json"),
    ):
        for names in SPLITS:
            hits = [sorted((folder / place).glob(pattern.format(name))) for name in names]
            if all(hits) and hits[0][0] != hits[1][0]:
                for name, several in zip(names, hits, strict=True):
                    if len(several) > 1:
                        raise UserError(
                            f"{folder / place} has several files for '{name}': "
                            f"{examples(p.name for p in several)}.",
                            "Keep one for training and one for evaluation.",
                        )
                return hits[0][0], hits[1][0]
    # Roboflow's, each beside its images.
    files = [folder / name / "_annotations.coco.json" for name in read_splits(folder, "") or ()]
    return tuple(files) if files and all(file.is_file() for file in files) else None


def _load(path: Path) -> dict:
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}.", "It must be COCO's json.") from error
    for part, keys in NEEDED.items():
        items = content.get(part) if isinstance(content, dict) else None
        if not isinstance(items, list) or not items:
            raise UserError(f"{path} has no '{part}'.", "It must be COCO's json for detection.")
        for item in items:
            ids = (item.get(key, 0) for key in keys if key.endswith("id"))
            if not all(isinstance(number, int | str) for number in ids):
                raise UserError(
                    f"An entry of '{part}' in {path} has an id that is none: {item}.",
                    "It must be a number or a text.",
                )
            missing = [key for key in keys if key not in item]
            if missing:
                raise UserError(
                    f"An entry of '{part}' in {path} lacks {', '.join(missing)}.",
                    f"Each needs {', '.join(keys)}.",
                )
    for part in NEEDED:
        if len({item["id"] for item in content[part]}) < len(content[part]):
            raise UserError(
                f"Some entries of '{part}' in {path} share their id.", "Number them from 1 on."
            )
    for image in content["images"]:
        sides = image["width"], image["height"]
        if not all(map(is_number, sides)) or not isinstance(image["file_name"], str):
            raise UserError(
                f"Image {image['id']} of {path} is {image['file_name']!r} of {sides[0]!r} x "
                f"{sides[1]!r} pixels.",
                "It must be a file name and two numbers.",
            )
    for category in content["categories"]:
        if not isinstance(category["name"], str) or not category["name"].strip():
            raise UserError(
                f"Category {category['id']} of {path} has the name {category['name']!r}.",
                "It must be a text.",
            )
    images, categories = ({x["id"] for x in content[part]} for part in ("images", "categories"))
    for item in content["annotations"]:
        problem, remedy = _fault(item, images, categories)
        if problem:
            raise UserError(f"Annotation {item['id']} of {path} {problem}.", remedy)
    return content


def _fault(item: dict, images: set, categories: set) -> tuple[str, str]:
    """What is wrong with an annotation and what to do, or two empty texts."""
    if item["image_id"] not in images:
        return (
            f"belongs to image {item['image_id']}, which is not among its images",
            "Add the image, or take the annotation out.",
        )
    if item["category_id"] not in categories:
        return (
            f"has the category {item['category_id']}, which is not among its categories",
            "Number both alike: annotations are often numbered from 0, categories from 1.",
        )
    if not _is_box(item["bbox"]):
        return (
            f"has the bbox {item['bbox']}",
            "It must be four numbers: left, top, width, height.",
        )
    if not is_number(item["area"]):
        return f"has the area {item['area']!r}", "It must be a number of pixels."
    if (item.get("iscrowd") or 0) not in (0, 1):
        return f"has iscrowd {item['iscrowd']!r}", "It must be 0 or 1, or be left out."
    return "", ""


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


def _is_inside(annotation: dict, width: float, height: float) -> bool:
    """Whether some of its box is in the image."""
    left, top, across, down = annotation["bbox"]
    return left < width and top < height and left + across >= 0 and top + down >= 0


def has_area(annotation: dict) -> bool:
    """Whether mmdet takes it."""
    return min(annotation["bbox"][2:]) >= 1 and annotation["area"] > 0


def _annotations(content: dict, path: Path, ids: set[int], masks: bool) -> list[dict]:
    annotations = [a for a in content["annotations"] if a["category_id"] in ids]
    if not annotations:
        raise UserError(
            f"{path} has no annotations of the chosen classes.", "Check the file, or --classes."
        )
    sides = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    outside = [a["id"] for a in annotations if not _is_inside(a, *sides[a["image_id"]])]
    if outside:
        raise UserError(
            f"{len(outside)} annotations of {path} have their bbox outside of their image: those "
            f"with the id {examples(map(str, outside))}.",
            "Correct them, or take them out; left, top, width and height are in pixels.",
        )
    if not any(has_area(a) and not a.get("iscrowd") for a in annotations):
        raise UserError(
            f"No annotation of the chosen classes in {path} can be learned from or judged on: each "
            "has the area 0, a bbox of less than a pixel, or iscrowd 1.",
            "Write left, top, width, height and area in pixels, and iscrowd 0 for single objects.",
        )
    without = [a["id"] for a in annotations if not a.get("segmentation")]
    if masks and without:
        raise UserError(
            f"{len(without)} annotations of {path} have boxes but no masks.",
            "For boxes alone take the config faster-rcnn_fpn_small.py; for instance segmentation "
            "every object needs its 'segmentation'.",
        )
    wrong = [
        a["id"]
        for a in annotations
        if masks and not is_mask(a["segmentation"], *sides[a["image_id"]])
    ]
    if wrong:
        raise UserError(
            f"{len(wrong)} annotations of {path} have a segmentation that is none: those with the "
            f"id {examples(map(str, wrong))}.",
            "It must be a list of polygons, each [x1, y1, x2, y2, x3, y3, ...], or a run-length "
            "code whose size is [height, width] of the image, and whose counts fill it.",
        )
    return annotations


def _image_folder(folder: Path, content: dict, path: Path) -> Path:
    """Where the images of a json are: the folder that has all of them."""
    split = path.stem.removeprefix("instances_")
    names = [image["file_name"] for image in content["images"]]
    beside = str(path.parent.relative_to(folder))
    places = (split, f"images/{split}", "images", "JPEGImages", ".", split.rstrip("0123456789"))
    places = tuple(dict.fromkeys((*places, beside)))
    best, absent = folder, names
    for place in places:
        missing = [name for name in names if not (folder / place / name).is_file()]
        if not missing:
            return folder / place
        if len(missing) < len(absent):
            best, absent = folder / place, missing
    if len(absent) < len(names):
        raise UserError(
            f"{len(absent)} images of {path.name} are not in {best}: {examples(absent)}.",
            "Add them, or take them out of the json.",
        )
    raise UserError(
        f"The images of {path} are in none of {', '.join(p + '/' for p in places if p != '.')} "
        f"below {folder}: {examples(absent)}.",
        "Put them in one of those folders.",
    )
