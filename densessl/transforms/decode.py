"""Image files to RGB arrays: JPEG through libjpeg-turbo, everything else through Pillow.

Nothing here keeps state: safe in threads and in forked workers. Whoever needs the size and the
pixels of one file reads it once and passes the bytes to both functions.
"""

import io
import os
import re
from collections.abc import Iterable
from contextlib import contextmanager

import numpy as np
import simplejpeg
from PIL import Image

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""File name endings that are taken for images, in lower case."""

MAX_PIXELS = 178_956_970
"""Larger images are refused as decompression bombs; Pillow's own limit."""

_ORIENTATION = 0x0112
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_PNG_EXIF = re.compile(rb"eXIf|Raw profile type exif")
_SKIPPED_MARKERS = {*range(0xE0, 0xF0), 0xFE}  # APP0 to APP15, COM

Source = str | os.PathLike | bytes


class ImageError(ValueError):
    """A file that cannot be read as an image.

    Args:
        path: The file, or "<bytes>".
        reason: What is wrong with it, in a few words.
    """

    def __init__(self, path: str, reason: str):
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_file(path: str | os.PathLike) -> bytes:
    """The bytes of a file.

    Raises:
        ImageError: It cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        raise ImageError(os.fspath(path), error.strerror or str(error)) from error


def read_image(source: Source, scale_hint: float = 1.0) -> np.ndarray:
    """Decodes an image to RGB, upright as its EXIF orientation says.

    Grays are repeated over the channels; 16-bit values keep their upper 8 bits. Transparency is
    dropped, the colours stored beneath it stay, as with Pillow's ``convert("RGB")``. Of an
    animation the first frame is taken.

    A JPEG that libjpeg-turbo reads only with complaints is left to Pillow to judge: it lets pass
    what is common in the wild (stray bytes between segments) and refuses truncated files.

    Args:
        source: A path or the file's bytes.
        scale_hint: 1, 1/2, 1/4 or 1/8: a JPEG is decoded at this fraction of its size, sides
            rounded up, which costs less. What Pillow decodes comes at full size: compare the
            result's shape with :func:`image_size`.

    Returns:
        ``(H, W, 3)`` uint8, contiguous.

    Raises:
        ImageError: The file is missing, empty, truncated, broken, no image, or larger than
            ``MAX_PIXELS``.
        ValueError: ``scale_hint`` is none of the four.
    """
    factor = round(1 / scale_hint)
    if factor not in (1, 2, 4, 8) or factor * scale_hint != 1:
        raise ValueError(f"scale_hint must be 1, 1/2, 1/4 or 1/8, got {scale_hint}")
    with _errors_of(source) as name:
        data = _load(source)
        header = _jpeg_header(data, name)
        if header is not None:
            height, width = header
            try:
                pixels = simplejpeg.decode_jpeg(
                    data,
                    min_height=-(-height // factor),
                    min_width=-(-width // factor),
                    min_factor=factor,
                )
                return _upright(pixels, _jpeg_orientation(data))
            except ValueError:
                pass
        image = _open(data, name)
        image.load()
        return _upright(_to_rgb(image, name), _orientation(image))


def image_size(source: Source) -> tuple[int, int]:
    """Width and height of the upright image, from the file's header alone.

    Of a path no more than that is read, PNGs excepted.

    Raises:
        ImageError: As :func:`read_image`, as far as the header shows it.
    """
    with _errors_of(source) as name:
        header = _jpeg_header(_load(source), name) if isinstance(source, bytes) else None
        if header is not None:
            (height, width), orientation = header, _jpeg_orientation(source)
        else:
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                width, height = image.size
                _check_size(width, height, name)
                # Pillow would decode a PNG in search of EXIF, which may stand behind the pixels.
                plain = image.format == "PNG" and not _PNG_EXIF.search(_load(source))
                orientation = 1 if plain else _orientation(image)
                if image.format == "TIFF":  # newer Pillows have turned ``size`` already
                    width, height = image.tag_v2[_TIFF_WIDTH], image.tag_v2[_TIFF_HEIGHT]
        return (height, width) if orientation >= 5 else (width, height)


def has_orientation(path: str | os.PathLike) -> bool:
    """Whether EXIF says that the image is to be turned or mirrored."""
    with Image.open(path) as image:
        return _orientation(image) != 1


def image_format(path: str | os.PathLike) -> str:
    """``JPEG``, ``WEBP`` ...: what the file is, whatever it is called."""
    with Image.open(path) as image:
        return image.format


def decode_scale(crop_sides: Iterable[float], out_side: int) -> float:
    """The smallest of 1, 1/2, 1/4, 1/8 at which no crop gets smaller than what is made of it.

    Args:
        crop_sides: Widths and heights of the crops, in pixels of the full image.
        out_side: Side to which the crops are resized.
    """
    smallest = min(crop_sides)
    return next((scale for scale in (1 / 8, 1 / 4, 1 / 2) if smallest * scale >= out_side), 1.0)


@contextmanager
def _errors_of(source: Source):
    """Gives the file's name; turns what a decoder raises on a bad file into ``ImageError``."""
    name = "<bytes>" if isinstance(source, bytes) else os.fspath(source)
    try:
        yield name
    except (ImageError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise ImageError(name, "there is no such file") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(name, "not an image of a known format") from error
    except Exception as error:  # Pillow's readers raise a dozen kinds, struct.error among them
        raise ImageError(name, str(error) or type(error).__name__) from error


def _load(source: Source) -> bytes:
    if not isinstance(source, bytes):
        with open(source, "rb") as file:
            source = file.read()
    if not source:
        raise ValueError("the file is empty")
    return source


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(name, f"{width} x {height} pixels are more than the limit of {MAX_PIXELS}")


def _jpeg_header(data: bytes, name: str) -> tuple[int, int] | None:
    """Height and width as stored, or None for what libjpeg-turbo does not turn into RGB."""
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_size(width, height, name)
    return (height, width) if colorspace not in ("CMYK", "YCCK") else None


def _open(data: bytes, name: str) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    _check_size(*image.size, name)
    return image


def _orientation(image: Image.Image) -> int:
    for key in ("XML:com.adobe.xmp", "xmp"):  # Pillow would look there too, hardly anybody else
        image.info.pop(key, None)
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # a broken EXIF block is no reason to lose the picture
        return 1
    return orientation if orientation in range(1, 9) else 1


def _jpeg_orientation(data: bytes) -> int:
    # Opening costs Pillow a tenth of a millisecond and most files have no EXIF: look first.
    return _orientation(Image.open(io.BytesIO(data))) if _has_exif(data) else 1


def _has_exif(data: bytes) -> bool:
    """Walks the application and comment segments that stand before the tables of a JPEG."""
    position = 2
    while data[position : position + 1] == b"\xff" and data[position + 1] in _SKIPPED_MARKERS:
        if data[position + 4 : position + 10] == b"Exif\0\0":
            return True
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    if image.mode == "F":
        raise ImageError(name, "32-bit float pixels have no defined range")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ImageError(name, "32-bit integer pixels have no defined range")
        if image.mode != "I" or values.max() > 0xFF:  # else 8 bits in 32
            values = values >> 8
        return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:  # spares a warning
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))
