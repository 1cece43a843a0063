"""Tiny labelled data sets: bright squares and discs on noise, with exact boxes and masks."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("disc", "square")


def scene(generator: np.random.Generator, size: int = 96):
    """One image (H, W, 3) and its objects: class, mask (H, W)."""
    pixels = generator.integers(0, 80, (size, size, 3))
    rows, columns = np.mgrid[:size, :size]
    objects = []
    for half in range(2):  # one object in each half, so that none hides another
        radius = int(generator.integers(12, 20))
        y = int(generator.integers(radius, size - radius))
        x = int(generator.integers(radius, size // 2 - radius + 1)) + half * size // 2
        label = int(generator.integers(2))
        dy, dx = abs(rows - y), abs(columns - x)
        mask = dy**2 + dx**2 < radius**2 if label == 0 else np.maximum(dy, dx) < radius
        pixels[mask] = (230, 60, 60) if label == 0 else (60, 60, 230)
        objects.append((label, mask))
    return pixels.astype(np.uint8), objects


def corners(mask: np.ndarray) -> list[int]:
    """xmin, ymin, xmax, ymax; the last ones are outside."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]


def make_voc(root: Path, train: int = 8, val: int = 4) -> Path:
    """A VOC folder with boxes and class masks."""
    for folder in ("JPEGImages", "Annotations", "SegmentationClass"):
        (root / folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        names = [f"{split}_{i}" for i in range(count)]
        for name in names:
            pixels, objects = scene(generator)
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
            classes, boxes = np.zeros(pixels.shape[:2], np.uint8), ""
            for label, mask in objects:
                classes[mask] = label + 1
                box = [v + 1 for v in corners(mask)]
                tags = "".join(
                    f"<{k}>{v}</{k}>"
                    for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
                )
                boxes += f"<object><name>{CLASSES[label]}</name><bndbox>{tags}</bndbox></object>"
            Image.fromarray(classes).save(root / "SegmentationClass" / f"{name}.png")
            height, width = classes.shape
            size = f"<size><width>{width}</width><height>{height}</height></size>"
            xml = f"<annotation>{size}{boxes}</annotation>"
            (root / "Annotations" / f"{name}.xml").write_text(xml)
        for kind in ("Main", "Segmentation"):
            (root / "ImageSets" / kind).mkdir(parents=True, exist_ok=True)
            (root / "ImageSets" / kind / f"{split}.txt").write_text("\n".join(names))
    (root / "classes.txt").write_text("background\ndisc\nsquare\n")
    return root


def make_coco(root: Path, train: int = 8, val: int = 4) -> Path:
    """A COCO folder with boxes and run-length masks."""
    from pycocotools import mask as coco_mask

    generator = np.random.default_rng(1)
    (root / "annotations").mkdir(parents=True)
    for split, count in (("train", train), ("val", val)):
        (root / f"{split}2017").mkdir()
        content = dict(
            images=[],
            annotations=[],
            categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)],
        )
        for number in range(count):
            pixels, objects = scene(generator)
            Image.fromarray(pixels).save(root / f"{split}2017" / f"{number}.jpg", quality=95)
            height, width = pixels.shape[:2]
            content["images"].append(
                dict(id=number, file_name=f"{number}.jpg", height=height, width=width)
            )
            for label, mask in objects:
                code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
                code["counts"] = code["counts"].decode()
                left, top, right, bottom = corners(mask)
                content["annotations"].append(
                    dict(
                        id=len(content["annotations"]) + 1,
                        image_id=number,
                        category_id=label + 1,
                        bbox=[left, top, right - left, bottom - top],
                        area=int(mask.sum()),
                        iscrowd=0,
                        segmentation=code,
                    )
                )
        path = root / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps(content))
    return root


def make_mask_folders(root: Path, train: int = 8, val: int = 4) -> Path:
    """images/{train,val} and masks/{train,val}."""
    generator = np.random.default_rng(2)
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for number in range(count):
            pixels, objects = scene(generator)
            classes = np.zeros(pixels.shape[:2], np.uint8)
            for label, mask in objects:
                classes[mask] = label + 1
            Image.fromarray(pixels).save(root / "images" / split / f"{number}.png")
            Image.fromarray(classes).save(root / "masks" / split / f"{number}.png")
    return root
