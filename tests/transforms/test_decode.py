import io
import pickle
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from densessl.transforms import decode
from densessl.transforms.decode import (
    EXTENSIONS,
    ImageError,
    decode_scale,
    image_size,
    read_image,
)

HEIGHT, WIDTH = 46, 61


def picture(channels: int = 3) -> np.ndarray:
    """A smooth picture without any symmetry, so that JPEG loses little and no rotation hides."""
    y, x = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j]
    planes = [x, y, 0.5 + 0.5 * np.sin(3 * x + 5 * y * y), 0.3 + 0.6 * x * y]
    return (255 * np.stack(planes[:channels], -1)).astype(np.uint8)


def encode(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def reference(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def jpeg(**options) -> bytes:
    return encode(Image.fromarray(picture()), "JPEG", quality=95, **options)


def rotated(format: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(Image.fromarray(picture()), format, exif=exif)


def check(data: bytes, tolerance: float = 0) -> np.ndarray:
    pixels = read_image(data)
    expected = reference(data)
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() <= tolerance
    assert image_size(data) == (pixels.shape[1], pixels.shape[0])
    return pixels


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_equals_pillow(subsampling, progressive):
    check(jpeg(subsampling=subsampling, progressive=progressive), tolerance=2)


@pytest.mark.parametrize("source", ["str", "path", "bytes"])
def test_reads_paths_and_bytes(tmp_path, source):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg())
    source = dict(str=str(path), path=path, bytes=path.read_bytes())[source]
    assert np.array_equal(read_image(source), read_image(jpeg()))
    assert image_size(source) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("orientation", range(0, 10))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_is_applied(format, orientation):
    data = rotated(format, orientation)
    check(data, tolerance=2)
    if orientation == 6:  # stored lying on its left side: x runs down the upright picture
        upright = read_image(data)[..., 0].astype(int)
        assert upright.shape == (WIDTH, HEIGHT) and upright[-1].mean() - upright[0].mean() > 200


def test_orientation_and_scaled_decode_together():
    pixels = read_image(rotated("JPEG", 8), 1 / 2)
    assert pixels.shape == (31, 23, 3)
    small = Image.fromarray(reference(rotated("JPEG", 8))).resize((23, 31), Image.Resampling.BOX)
    assert np.abs(pixels.astype(int) - np.asarray(small)).mean() < 4


def test_orientation_is_found_behind_a_large_profile():
    data = rotated("JPEG", 6)
    segment = b"\xff\xe2" + struct.pack(">H", 60002) + bytes(60000)
    check(data[:2] + 3 * segment + data[2:], tolerance=2)


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_an_orientation_that_only_xmp_names_is_left_to_others(tmp_path, mode):
    """As OpenCV and browsers do."""
    image = Image.fromarray(picture()).convert(mode)
    data = encode(image, "JPEG", xmp=b'<x tiff:Orientation="6"/>')
    (tmp_path / "a.jpg").write_bytes(data)
    assert image_size(data) == image_size(tmp_path / "a.jpg") == (WIDTH, HEIGHT)
    assert read_image(data).shape == (HEIGHT, WIDTH, 3)


def test_broken_exif_is_ignored():
    data = jpeg(exif=b"Exif\0\0MM\0*garbage")
    check_size = image_size(data)
    assert check_size == (WIDTH, HEIGHT) and read_image(data).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("scale, divisor", [(1, 1), (1 / 2, 2), (1 / 4, 4), (1 / 8, 8)])
def test_scaled_decode(scale, divisor):
    pixels = read_image(jpeg(), scale)
    height, width = -(-HEIGHT // divisor), -(-WIDTH // divisor)
    assert pixels.shape == (height, width, 3)
    padding = (0, height * divisor - HEIGHT), (0, width * divisor - WIDTH), (0, 0)
    blocks = np.pad(picture(), padding, mode="edge").reshape(height, divisor, width, divisor, 3)
    assert np.abs(pixels - blocks.mean((1, 3))).mean() < 3


@pytest.mark.parametrize("scale", [0.3, 2, 1 / 16, 0.75])
def test_other_scales_are_refused(scale):
    with pytest.raises(ValueError, match="scale_hint"):
        read_image(jpeg(), scale)


def test_other_formats_come_at_full_size():
    data = encode(Image.fromarray(picture()), "PNG")
    assert read_image(data, 1 / 4).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    "sides, out, scale",
    [
        ([223], 224, 1.0),
        ([447], 224, 1.0),
        ([448, 2000], 224, 1 / 2),
        ([895.9], 224, 1 / 2),
        ([896], 224, 1 / 4),
        ([1792], 224, 1 / 8),
        ([100000], 224, 1 / 8),
        ([100000, 300], 224, 1.0),
    ],
)
def test_decode_scale(sides, out, scale):
    assert decode_scale(sides, out) == scale


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_lossless_formats_equal_pillow(format, mode):
    check(encode(Image.fromarray(picture()).convert(mode), format))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_dropped_and_colours_stay(mode):
    rgba = Image.fromarray(picture(4), "RGBA")
    if mode == "PA":  # a palette whose entries carry transparency
        data = encode(Image.fromarray(picture()).quantize(16), "PNG", transparency=bytes(range(16)))
    else:
        data = encode(rgba.convert(mode), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = read_image(data)
    stored = Image.open(io.BytesIO(data))
    assert np.array_equal(pixels, np.asarray(stored.convert("RGBA"))[..., :3])


def test_gray_jpeg_has_three_equal_channels():
    pixels = check(encode(Image.fromarray(picture()).convert("L"), "JPEG"), tolerance=1)
    assert (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all()


def test_cmyk_jpeg_equals_pillow():
    check(encode(Image.fromarray(picture(4), "CMYK"), "JPEG"))


@pytest.mark.parametrize("lossless", [True, False])
def test_webp(lossless):
    check(encode(Image.fromarray(picture()), "WEBP", lossless=lossless))


def test_first_frame_of_an_animation():
    first, second = Image.fromarray(picture()), Image.fromarray(255 - picture())
    for format in ("GIF", "WEBP"):
        pixels = check(encode(first, format, save_all=True, append_images=[second]))
        assert np.abs(pixels.astype(int) - picture()).mean() < 30


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_gray_is_scaled_not_clipped(format):
    values = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 23
    pixels = read_image(encode(Image.fromarray(values), format))
    assert np.array_equal(pixels, np.repeat((values >> 8)[..., None], 3, 2))


def test_big_endian_sixteen_bit_tiff():
    values = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 23).astype(">u2")
    image = Image.frombytes("I;16B", (WIDTH, HEIGHT), values.tobytes())
    assert np.array_equal(read_image(encode(image, "TIFF"))[..., 0], values >> 8)


def test_sixteen_bit_colour_png():
    values = np.arange(4 * 5 * 3, dtype=np.uint16).reshape(4, 5, 3) * 1000
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert np.array_equal(read_image(data), values >> 8)


def test_eight_bits_in_integers_of_32():
    values = np.arange(16, dtype=np.int32).reshape(4, 4) * 17
    assert np.array_equal(read_image(encode(Image.fromarray(values), "TIFF"))[..., 1], values)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_range_are_refused(mode):
    image = Image.fromarray(np.full((4, 4), 70000, np.float32)).convert(mode)
    with pytest.raises(ImageError, match="no defined range"):
        read_image(encode(image, "TIFF"))


BROKEN = {
    "empty": b"",
    "text": b"<html>not found</html>",
    "two bytes": b"\xff\xd8",
    "jpeg header only": jpeg()[:200],
    "half a jpeg": jpeg()[: len(jpeg()) // 2],
    "jpeg without its end": jpeg()[:-40],
    "half a progressive jpeg": jpeg(progressive=True)[: len(jpeg()) // 2],
    "half a cmyk jpeg": encode(Image.fromarray(picture(4), "CMYK"), "JPEG", quality=95)[:-400],
    "half a png": encode(Image.fromarray(picture()), "PNG")[:600],
    "png header only": encode(Image.fromarray(picture()), "PNG")[:40],
    "half a webp": encode(Image.fromarray(picture()), "WEBP", lossless=True)[:200],
    "half a bmp": encode(Image.fromarray(picture()), "BMP")[:3000],
    "half a tiff": encode(Image.fromarray(picture()), "TIFF")[:3000],
    "half a gif": encode(Image.fromarray(picture()), "GIF")[:900],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_raise_image_error(tmp_path, kind):
    path = tmp_path / "broken.jpg"
    path.write_bytes(BROKEN[kind])
    for source in (path, BROKEN[kind]):
        with pytest.raises(ImageError) as error:
            read_image(source)
        assert error.value.reason and "\n" not in error.value.reason
        assert error.value.path == (str(path) if source is path else "<bytes>")
    if kind in ("empty", "text", "two bytes"):
        with pytest.raises(ImageError):
            image_size(path)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_the_size_of_a_file_needs_no_pixels(tmp_path, format, monkeypatch):
    path = tmp_path / "image"
    path.write_bytes(rotated(format, 6))
    assert image_size(path) == (HEIGHT, WIDTH)
    path.write_bytes(encode(Image.fromarray(picture()), format)[:-30])
    loaded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", loaded.append)
    if format == "JPEG":
        monkeypatch.setattr(decode, "_load", loaded.append)
    assert image_size(path) == (WIDTH, HEIGHT) and not loaded


def test_missing_files_and_folders(tmp_path):
    for path, reason in ((tmp_path / "none.jpg", "no such file"), (tmp_path, "directory")):
        for function in (read_image, image_size):
            with pytest.raises(ImageError, match=reason):
                function(path)


def test_stray_bytes_in_a_jpeg_are_harmless():
    data = jpeg()
    assert np.array_equal(read_image(data[:-2] + bytes(50) + data[-2:]), reference(data))


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_decompression_bombs_are_refused(format):
    if format == "PNG":  # 32768 x 32768 pixels by its header
        data = bytearray(encode(Image.fromarray(picture()), "PNG"))
        data[16:24] = struct.pack(">II", 32768, 32768)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    else:
        data = bytearray(jpeg())
        start = data.index(b"\xff\xc0") + 5
        data[start : start + 4] = struct.pack(">HH", 32768, 32768)
    for function in (read_image, image_size):
        with pytest.raises(ImageError, match="limit"):
            function(bytes(data))


def test_image_error_survives_pickling():
    error = pickle.loads(pickle.dumps(ImageError("a.jpg", "the file is empty")))
    assert (error.path, error.reason) == ("a.jpg", "the file is empty")
    assert str(error) == "a.jpg: the file is empty" and isinstance(error, ValueError)


def test_threads_do_not_disturb_each_other():
    sources = [jpeg(), rotated("JPEG", 6), encode(Image.fromarray(picture()), "PNG")] * 20
    expected = [read_image(source) for source in sources]
    with ThreadPoolExecutor(8) as pool:
        for pixels, wanted in zip(pool.map(read_image, sources), expected, strict=True):
            assert np.array_equal(pixels, wanted)


def test_extensions_are_lower_case_with_dot():
    assert all(name.startswith(".") and name == name.lower() for name in EXTENSIONS)
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"} <= set(EXTENSIONS)
