"""What the layouts of labelled data have in common: folders, lists, names, and sizes of images."""

from collections.abc import Container, Iterable
from pathlib import Path

from densessl.errors import UserError
from densessl.suggest import did_you_mean
from densessl.transforms.decode import ImageError, has_orientation, image_format, image_size

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
LAYOUTS = {
    "detection": "a VOC folder (JPEGImages/, Annotations/*.xml, ImageSets/Main/{train,val}.txt) or "
    "a COCO folder (annotations/*train*.json and *val*.json, or coco/instances_{train,val}.json, "
    "beside the images)",
    "instance": "a COCO folder whose annotations have masks (annotations/*train*.json and "
    "*val*.json, or coco/instances_{train,val}.json, beside the images)",
    "segmentation": "a VOC folder (JPEGImages/, SegmentationClass/*.png, ImageSets/Segmentation/"
    "{train,val}.txt) or images/{train,val} with masks/{train,val} (or annotations/, or img_dir/ "
    "with ann_dir/)",
}
WHERE = "Check the path; relative ones start at the current folder."
# Names of the training and the evaluation list, tried in this order.
SPLITS = (
    *(("train", "val"), ("train", "valid"), ("trainval", "test"), ("train", "test")),
    ("training", "validation"),
)


def check_folder(folder: str | Path) -> Path:
    """The folder as an absolute path.

    Raises:
        UserError: It does not exist, is a file, or is empty.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"The data folder {folder} {what}.", WHERE)
    if not any(folder.iterdir()):
        raise UserError(f"The data folder {folder} is empty.", WHERE)
    return folder.resolve()


def places(folder: Path) -> Iterable[Path]:
    """The folder, then its subfolders: VOC's archives have the set two folders down."""
    yield folder
    inner = sorted(p for p in folder.iterdir() if p.is_dir())
    yield from inner
    for one in inner:
        yield from sorted(p for p in one.iterdir() if p.is_dir() and p.name.startswith("VOC"))


def read_splits(folder: Path, suffix: str) -> tuple[str, str] | None:
    """The names of the training and evaluation lists or folders that exist, or None.

    Capitals of folders do not matter.
    """
    there = {path.name if suffix else path.name.lower(): path.name for path in folder.iterdir()}
    for split in SPLITS:
        if all(f"{name}{suffix}" in there for name in split):
            return tuple(there[f"{name}{suffix}"].removesuffix(suffix) for name in split)
    return None


def read_ids(path: Path, images: Container[str]) -> list[str]:
    """The name in each line: all of it or its first word, which may be a file's with its suffix.

    Raises:
        UserError: The list is empty, or no text.
    """
    ids = []
    for line in filter(None, map(str.strip, read_lines(path))):
        first = line.split()[0]
        names = [line, first]
        names += [Path(x).stem for x in names if Path(x).suffix.lower() in IMAGE_SUFFIXES]
        ids.append(next((name for name in names if name in images), first))
    if not ids:
        raise UserError(f"{path} names no image.", "Write one image name a line, without suffix.")
    return ids


def read_lines(path: Path) -> list[str]:
    """The lines of a text file.

    Raises:
        UserError: It is not UTF-8.
    """
    try:
        return path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text: {error.reason}.", "Save it as UTF-8.") from error


def index_images(folder: Path) -> dict[str, Path]:
    """Stem -> file of every image in ``folder`` that no dot hides (macOS writes ``._x.jpg``).

    Raises:
        UserError: Two have the same stem.
    """
    files = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    images = {path.stem: path for path in files}
    if len(images) < len(files):
        lost = next(path for path in files if images[path.stem] != path)
        raise UserError(
            f"{folder} has both {lost.name} and {images[lost.stem].name}.",
            "Labels belong to names without suffix: keep one of them.",
        )
    return images


def overlap(train: Iterable[str], val: Iterable[str]) -> str:
    """A note on files that are in both parts; empty if there are none."""
    both = {*train} & {*val}
    return f"images in both parts, learned from and judged on: {len(both)}" if both else ""


def check_size(what: str, size: tuple[int, int] | None, image: Path) -> tuple[int, int]:
    """Compares a label's size with its image, as it is once turned upright.

    Args:
        what: What says the size, for the message.
        size: Width and height; None where nothing says them.
        image: The file; only its header is read.

    Returns:
        Width and height of the upright image.

    Raises:
        UserError: The image cannot be read, has another size, or would be trained on unturned.
    """
    try:
        upright = image_size(image)
    except ImageError as error:
        raise UserError(
            f"The image {image} cannot be read: {error.reason}.",
            "Replace it, or take it out of the list.",
        ) from error
    if image_format(image) == "WEBP" and has_orientation(image):
        raise UserError(
            f"The image {image} is turned by its EXIF orientation, which mmdet and mmseg read in "
            "JPEGs but not in WebP.",
            "Save it upright.",
        )
    if size is not None and size != upright:
        raise UserError(
            f"{what} has {size[0]}x{size[1]} pixels, its image {image} {upright[0]}x{upright[1]} "
            "once it is upright.",
            "Labels must have the size of their image. A likely cause is EXIF: training turns "
            "images upright. Turn the labels too, or save the image without its orientation.",
        )
    return upright


def choose_classes(found: list[str], wanted: list[str] | None, where: str) -> list[str]:
    """``wanted``, checked against the classes the data has; all of them by default.

    Raises:
        UserError: A wanted class is not in the data, or a name cannot stand in a config.
    """
    if odd := [name for name in found if "{{" in name]:
        raise UserError(
            f"{where} has the class '{odd[0]}'.", "Rename it: {{ }} are a config's variables."
        )
    for name in wanted or ():
        if name not in found and "=" in name:
            raise UserError(
                f"'{name}' cannot be used here: INDEX=NAME is for masks, and then for every class.",
                "Write INDEX=NAME for each class of masks, or names of the data's for each.",
            )
        if name not in found:
            raise UserError(
                f"{where} has no class '{name}'{did_you_mean(name, found)}.",
                f"Its classes are: {', '.join(found)}.",
            )
    return [name for name in found if name in wanted] if wanted else found
