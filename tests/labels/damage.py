"""What labelled data may suffer."""

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
