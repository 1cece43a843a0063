"""Where images come from. A data set is a list of files and a transform; it keeps no state."""

import hashlib
import json
import math
import os
import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from densessl.datasets.names import Names
from densessl.errors import UserError
from densessl.numeric import spaced
from densessl.registry import DATASETS, TRANSFORMS
from densessl.structures import SampleKey, ViewBatch
from densessl.suggest import did_you_mean
from densessl.transforms.decode import EXTENSIONS, ImageError, read_file, read_image

MAX_SUBSTITUTES = 10


class ImageDataset(Dataset, metaclass=ABCMeta):
    """Base of all data sets: ``list_files`` names the images, the transform makes views of them.

    An image that cannot be read is replaced by another one of the same list, drawn from the
    sample's own random numbers, and the sample says so in ``broken``.

    Args:
        root: Folder of the images.
        transform: Config or callable ``(bytes, SampleKey) -> (views, records)``: uint8 tensors
            (H, W, 3) and ``ViewRecord`` of plain numbers.
        max_broken: Share of unreadable images above which training stops.

    Raises:
        UserError: If a path is missing or no image is found.
    """

    listing: Path | None = None  # the file that names the images, where there is one

    def __init__(self, root: str, transform: dict | Callable, max_broken: float = 0.05):
        self.root = str(Path(root).expanduser())
        self.max_broken = max_broken
        self.transform = TRANSFORMS.build(transform) if isinstance(transform, dict) else transform
        self.files = Names(self.list_files())
        if not self.files and self.listing:
            raise UserError(f"{self.listing} names no image.", "check that file")
        if not self.files:
            raise UserError(
                f"No images found in {self.root}.",
                f"name a folder with images ({', '.join(EXTENSIONS)}) or uncompressed .tar shards; "
                "folders inside it are searched too",
            )

    @abstractmethod
    def list_files(self) -> list[str]:
        """Paths of the images, relative to ``root``, in a fixed order."""

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> str:
        return os.path.join(self.root, self.files[index])

    def read(self, index: int) -> bytes:
        """The bytes of image ``index``.

        Raises:
            ImageError: If the file cannot be read.
        """
        return read_file(self.path(index))

    def __getitem__(self, key: SampleKey) -> ViewBatch:
        """One sample: a ``ViewBatch`` whose views lack the batch axis, the rest plain numbers."""
        if not isinstance(key, SampleKey):
            raise TypeError(
                f"an image is asked for by a SampleKey(seed, epoch, index), not by {key!r}: its "
                "views' random numbers follow from that; ViewSampler yields them to a DataLoader"
            )
        broken = -1
        for index in self._candidates(key):
            try:
                views, records = self.transform(self.read(index), key)
            except ImageError:
                broken = key.index
                continue
            return ViewBatch(views, records, key.index, broken)
        raise UserError(
            f"{MAX_SUBSTITUTES + 1} images in a row cannot be read in {self.root}, the first is "
            f"{self.path(key.index)}.",
            "check the folder; most of its images seem to be broken",
        )

    def _candidates(self, key: SampleKey) -> Iterator[int]:
        """The image asked for, then others drawn in its place, for as long as none can be read."""
        yield key.index
        rng = np.random.default_rng((*key, len(self)))
        yield from rng.integers(len(self), size=MAX_SUBSTITUTES).tolist()

    @cached_property
    def metainfo(self) -> dict:
        """Number of images and SHA-256 of the list of their names; kept in checkpoints."""
        names = os.fsencode("\n".join(self.files))  # not every file system's names are UTF-8
        return dict(count=len(self), sha256=hashlib.sha256(names).hexdigest())

    def problem(self, index: int) -> str | None:
        """Path of image ``index`` and why it cannot be read, or None if it can."""
        try:
            read_image(self.read(index))
        except ImageError as error:
            return f"{self.path(index)}: {error.reason}"
        return None

    def warnings(self) -> list[str]:
        """What the log should say about the list of images before training."""
        return []

    def check(self, samples: int = 64) -> list[str]:
        """Decodes up to ``samples`` evenly spaced images before training.

        Returns:
            One line for each that cannot be read.

        Raises:
            UserError: If their share is above ``max_broken``.
        """
        picked = spaced(len(self), samples)
        problems = [line for index in picked if (line := self.problem(index))]
        if above_share(self.max_broken, len(problems), len(picked), len(self)):
            raise too_many_broken(problems, len(picked), self.max_broken)
        return problems


def above_share(allowed: float, broken: int, seen: int, total: int) -> bool:
    """Whether ``broken`` of the ``seen`` images show that the share among all ``total`` is above
    ``allowed``: as long as some are unseen, by three standard deviations and one."""
    expected = allowed * seen
    margin = 3 * math.sqrt(expected * (1 - allowed)) + 1 if allowed and seen < total else 0
    return broken > expected + margin


def too_many_broken(
    problems: list[str],
    seen: int,
    allowed: float,
    remedy: str = "mend or remove them, or allow more with "
    "--cfg-options train_dataloader.dataset.max_broken=SHARE",
) -> UserError:
    """The error that says which of the images seen are broken."""
    first = "\n  ".join(problems[:5])
    return UserError(
        f"{len(problems)} of {seen} images cannot be read, more than the share of {allowed:g} "
        f"that is allowed:\n  {first}",
        remedy,
    )


def existing(path: str | Path, what: str, remedy: str = "check the path") -> Path:
    """``path`` if it exists.

    Raises:
        UserError: Otherwise, with a near name from the same folder.
    """
    path = Path(path).expanduser()
    if path.exists():
        return path
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise UserError(
        f"{what} does not exist: {path}{did_you_mean(path.name, siblings)}",
        f"{remedy}; relative paths start at the current folder",
    )


def is_image(path: str) -> bool:
    """Whether the path's ending is an image's, and no dot hides the file."""
    return path.lower().endswith(EXTENSIONS) and not path.rpartition("/")[2].startswith(".")


def walk_images(root: Path) -> list[str]:
    """All images below ``root``, sorted; see ``files_below``."""
    return sorted(files_below(root, is_image))


def files_below(root: Path, wanted: Callable[[str], bool]) -> Iterator[str]:
    """Files below ``root`` whose names are ``wanted``, relative to it.

    Links to folders are followed, but none twice; folders that begin with a dot are left out.

    Raises:
        UserError: If ``root`` cannot be read; folders below it that cannot are left out.
    """

    def unreadable(error: OSError) -> None:
        if Path(error.filename) == Path(root):
            raise UserError(
                f"The folder {root} cannot be read: {error.strerror}.", "check its permissions"
            ) from error
        warnings.warn(f"{error.filename} cannot be read: {error.strerror}", stacklevel=2)

    seen = set()
    for folder, inner, names in os.walk(root, onerror=unreadable, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        # Sorted, so that of two ways to a folder every machine takes the same.
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in names:
            if wanted(name):
                yield os.path.relpath(os.path.join(folder, name), root)


@DATASETS.register_module()
class ImageFolder(ImageDataset):
    """Every image below a folder, however deep."""

    def list_files(self) -> list[str]:
        root = existing(self.root, "The image folder", "name one with --images DIR")
        if not root.is_dir():
            raise UserError(f"{root} is a file, not a folder of images.", "name its folder")
        return walk_images(root)

    def warnings(self) -> list[str]:
        masks = _masks(self.files)
        if not masks:
            return []
        return [
            f"{len(masks)} of the {len(self)} images may be masks: PNGs with the names of images "
            f"in other folders, {os.path.join(self.root, masks[0])} the first. If they are, name "
            "the folder of the photographs alone"
        ]


def _masks(files: Sequence[str]) -> list[str]:
    """Those that look like masks: PNGs, in folders of their own, with the names of the others."""
    folder, stem = os.path.dirname, lambda name: os.path.splitext(os.path.basename(name))[0]
    pngs = [name for name in files if name.lower().endswith(".png")]
    photos = {stem(name): folder(name) for name in set(files).difference(pngs)} if pngs else {}
    return [name for name in pngs if photos.get(stem(name), folder(name)) != folder(name)]


@DATASETS.register_module()
class FileList(ImageDataset):
    """The images that a text file names, one path a line, relative to ``root``.

    Args:
        list_file: The text file; empty lines are skipped.
    """

    def __init__(self, list_file: str, root: str = ".", **kwargs):
        self.list_file = list_file
        super().__init__(root, **kwargs)

    def list_files(self) -> list[str]:
        existing(self.root, "The image folder")
        self.listing = path = existing(self.list_file, "The file list")
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")  # Windows writes a mark first
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is no list of names: {error}", "save it as UTF-8") from error
        return [line.rstrip(" \t\r") for line in lines if line.strip()]


@DATASETS.register_module()
class VOCImages(ImageDataset):
    """Images of a VOC devkit year, e.g. ``VOCdevkit/VOC2012``.

    Args:
        split: Name of a list in ``ImageSets/Main``, of a class's those that are not -1; None takes
            all of ``JPEGImages``. What it names and is not there counts as broken.
    """

    def __init__(self, root: str, split: str | None = None, **kwargs):
        self.split = split
        super().__init__(root, **kwargs)

    def list_files(self) -> list[str]:
        images = existing(Path(self.root) / "JPEGImages", "The VOC image folder")
        files = walk_images(images)
        if self.split is not None:
            self.listing = existing(
                Path(self.root) / "ImageSets/Main" / f"{self.split}.txt", "The VOC split"
            )
            lines = map(str.split, self.listing.read_text(encoding="utf-8-sig").splitlines())
            wanted = {line[0] for line in lines if line and line[1:2] != ["-1"]}
            there = {Path(name).stem: name for name in files} | {name: name for name in files}
            files = sorted(there.get(name, f"{name}.jpg") for name in wanted)
        return [f"JPEGImages/{name}" for name in files]


@DATASETS.register_module()
class CocoImages(ImageDataset):
    """The images that a COCO annotation file lists.

    Args:
        annotation: The json file; only its ``images`` are used.
    """

    def __init__(self, root: str, annotation: str, **kwargs):
        self.annotation = annotation
        super().__init__(root, **kwargs)

    def list_files(self) -> list[str]:
        existing(self.root, "The COCO image folder")
        self.listing = path = existing(self.annotation, "The COCO annotation file")
        try:
            images = json.loads(path.read_text("utf-8-sig"))["images"]
            return sorted(os.fspath(image["file_name"]) for image in images)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is not a COCO annotation file: {error!r}",
                "it must be json with a list 'images' of entries with 'file_name'",
            ) from error


@DATASETS.register_module()
class ImageNet(ImageDataset):
    """ImageNet's layout: ``root/train/nXXXXXXXX/*.JPEG``.

    Args:
        split: The folder below ``root``.
    """

    def __init__(self, root: str, split: str = "train", **kwargs):
        self.split = split
        super().__init__(root, **kwargs)

    def list_files(self) -> list[str]:
        folder = existing(Path(self.root) / self.split, "The ImageNet folder")
        return [f"{self.split}/{name}" for name in walk_images(folder)]
