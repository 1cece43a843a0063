"""What labelled data may suffer."""

import shutil
from pathlib import Path

from PIL import Image


def replace_in(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def turn(path: Path) -> None:
    """Stores the image on its side, with the EXIF orientation that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.crop((0, 0, 96, 64)).rotate(90, expand=True).save(path, exif=exif, quality=95)


def mark_difficult(root: Path, pattern: str) -> None:
    """Every object of a VOC folder's annotations of that name."""
    for path in (root / "Annotations").glob(f"{pattern}.xml"):
        replace_in(path, "<bndbox>", "<difficult>1</difficult><bndbox>")


def learn_from_val(root: Path) -> None:
    """Puts what a VOC or a COCO folder judges on among what it learns from."""
    for folder in (root / "ImageSets").glob("*"):
        lists = ((folder / f"{split}.txt").read_text() for split in ("train", "val"))
        (folder / "train.txt").write_text("\n".join(lists))
    if (root / "annotations").is_dir():
        files = (root / "annotations" / f"instances_{split}2017.json" for split in ("train", "val"))
        train, val = files
        train.write_text(val.read_text())
        shutil.rmtree(root / "train2017")
        (root / "val2017").rename(root / "images")
