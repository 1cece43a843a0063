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
