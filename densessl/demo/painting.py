"""Draws one synthetic scene: textured shapes on a cluttered, unevenly lit background.

A class is an outline with a texture and a range of hues of its own, so that a small network finds
something in minutes. Pose, light, wavelength, brightness and occlusion vary; decoys wear the
background's colours and any texture.

Images are float32 arrays (3, size, size) in [0, 1] while they are being painted: planes, because
numpy is several times faster when the longest axis comes last. Shapes live in object space,
roughly [-1, 1]^2.
"""

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from densessl.demo.outlines import OUTLINES, decoy

CLASSES = ("disc", "ring", "box", "cross", "star", "triangle")


@dataclass
class Scene:
    """A painted scene.

    Attributes:
        image: (size, size, 3) uint8, RGB.
        ids: (size, size) uint8, 0 for background, ``k + 1`` where object ``k`` is visible; a larger
            id lies in front.
        labels: For each object the index of its class in ``CLASSES``.
        truncated: For each object whether part of it is outside the frame.
        occluded: For each object whether something covers part of it.
    """

    image: np.ndarray
    ids: np.ndarray
    labels: list[int]
    truncated: list[bool]
    occluded: list[bool]


@dataclass
class _Layer:
    """A shape for the canvas: ``alpha`` (h, w) and ``colour`` (3, h, w) at ``rows``, ``cols``."""

    alpha: np.ndarray
    colour: np.ndarray
    rows: slice
    cols: slice
    label: int | None
    inside_share: float


# --- Noise and colour ----------------------------------------------------------------------------


def _resize(field: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(field).resize((size, size), Image.Resampling.BICUBIC))


def _noise(
    rng: np.random.Generator, size: int, cells: int, octaves: int, gain: float
) -> np.ndarray:
    """Multi-octave value noise (size, size) with values spread over [0, 1].

    Args:
        rng: Source of the lattice values.
        size: Side in pixels.
        cells: Lattice cells along a side in the first octave; doubles with each octave.
        octaves: Number of octaves; those finer than a pixel are left out.
        gain: Amplitude of an octave relative to the one before.
    """
    total = rng.random((cells, cells), dtype=np.float32)
    for octave in range(1, octaves):
        cells *= 2
        if cells > size:
            break
        total = _resize(total, cells) + gain**octave * rng.random((cells, cells), dtype=np.float32)
    total = _resize(total, size)
    low, high = total.min(), total.max()
    return (total - low) / max(high - low, 1e-6)


def _colour(
    rng: np.random.Generator,
    saturation: tuple[float, float],
    value: tuple[float, float],
    hue: float | None = None,
) -> np.ndarray:
    hue = rng.random() if hue is None else hue
    rgb = colorsys.hsv_to_rgb(hue, rng.uniform(*saturation), rng.uniform(*value))
    return np.array(rgb, np.float32).reshape(3, 1, 1)


def _blend(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """From ``first`` at ``weight`` (h, w) 0 to ``second`` at 1; both (3, h, w) or (3, 1, 1)."""
    return first + (second - first) * weight


def _step(x: np.ndarray, width: float) -> np.ndarray:
    """A soft step from 0 to 1 around ``x = 0``."""
    return np.clip(x / width + 0.5, 0, 1)


# --- Textures: (u, v) -> weight of the second colour ---------------------------------------------


def _texture(
    rng: np.random.Generator,
    u: np.ndarray,
    v: np.ndarray,
    wavelength: float,
    kind: int | None = None,
) -> np.ndarray:
    """One random texture over the coordinates ``u``, ``v`` (h, w), with values in [0, 1].

    Args:
        rng: Chooses the texture and its pose.
        u: First coordinate of each pixel.
        v: Second coordinate of each pixel.
        wavelength: Period of the pattern in the unit of the coordinates.
        kind: Which of the six; None draws one.
    """
    angle = rng.uniform(0, math.pi)
    x, y = math.cos(angle) * math.tau / wavelength, math.sin(angle) * math.tau / wavelength
    a = u * x + v * y + rng.uniform(0, 6)
    b = v * x - u * y + rng.uniform(0, 6)
    if kind is None:
        kind = rng.integers(6)
    if kind == 0:  # stripes, from thin to broad
        return _step(np.sin(a) - rng.uniform(-0.5, 0.5), 0.5)
    if kind == 1:  # checks
        return _step(np.sin(a) * np.sin(b), 0.3)
    if kind == 2:  # dots
        return _step(np.cos(a) + np.cos(b) - rng.uniform(0.5, 1.0), 0.6)
    if kind == 3:  # waves
        return _step(np.sin(a + 1.2 * np.sin(b * 0.7)), 0.6)
    if kind == 4:  # marble: a sum of incommensurate sines bent by each other
        warp = np.sin(a * 0.61 + 1.3 * np.sin(b * 0.47))
        return 0.5 + 0.5 * np.sin(a * 0.8 + 2.1 * warp + np.sin(b * 1.37))
    return 0.15 + 0.25 * np.sin(a * 0.4) ** 2  # nearly plain


# --- The scene -----------------------------------------------------------------------------------


def _background(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """A background (3, size, size) of two textured regions, and the colours it is made of."""
    v, u = np.mgrid[0:size, 0:size].astype(np.float32) / size
    saturation = (0.05, rng.uniform(0.15, 0.55))
    colours = [_colour(rng, saturation, (0.2, 0.95)) for _ in range(4)]
    regions = []
    for first, second in (colours[:2], colours[2:]):
        # Roughness varies from clouds to gravel; the ground plane recedes in half of the regions.
        grain = _noise(rng, size, int(rng.integers(2, 12)), 6, rng.uniform(0.45, 0.9))
        depth = 1 / (0.55 + v) if rng.random() < 0.5 else 1.0
        pattern = _texture(rng, u * depth, v * depth, rng.uniform(0.05, 0.25))
        share = rng.uniform(0, 0.6)
        regions.append(_blend(first, second, (1 - share) * grain + share * pattern))
    if rng.random() < 0.5:  # a horizon
        edge = v - rng.uniform(0.25, 0.75) - rng.uniform(-0.3, 0.3) * (u - 0.5)
        border = edge + 0.08 * (_noise(rng, size, 4, 4, 0.5) - 0.5)
    else:  # patches
        border = _noise(rng, size, int(rng.integers(2, 5)), 3, 0.5) - rng.uniform(0.35, 0.75)
    return _blend(regions[0], regions[1], _step(border, rng.uniform(0.01, 0.15))), colours


def _pose(rng: np.random.Generator, size: int, radius: float) -> np.ndarray:
    """A random 3x3 homography from object space to pixels: turn, tilt, perspective, place."""
    turn, tilt_axis = rng.uniform(0, math.tau), rng.uniform(0, np.pi)
    cos, sin = np.cos(tilt_axis), np.sin(tilt_axis)
    axis = np.array([[cos, -sin], [sin, cos]])
    tilt = axis @ np.diag([1.0, rng.uniform(0.65, 1.0)]) @ axis.T
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    pose = np.eye(3)
    pose[:2, :2] = radius * tilt @ rotation
    pose[2, :2] = rng.uniform(-0.18, 0.18, 2)
    margin = 0.5 * radius
    place = np.eye(3)
    place[:2, 2] = rng.uniform(margin, size - margin, 2)
    return place @ pose


def _paint_layer(
    rng: np.random.Generator, size: int, label: int | None, radius: float, palette: list[np.ndarray]
) -> _Layer:
    """Poses, textures and shades one shape, whose middle is in the frame."""
    outline = decoy(rng) if label is None else OUTLINES[label]
    pose = _pose(rng, size, radius)
    corners = pose @ np.array([[-1.1, 1.1, 1.1, -1.1], [-1.1, -1.1, 1.1, 1.1], [1, 1, 1, 1]])
    corners = corners[:2] / corners[2]
    x0, y0 = (math.floor(low) for low in corners.min(1))
    x1, y1 = (math.ceil(high) for high in corners.max(1))

    x = np.arange(x0, x1, dtype=np.float32)[None] + 0.5
    y = np.arange(y0, y1, dtype=np.float32)[:, None] + 0.5
    to_object = np.linalg.inv(pose).tolist()
    u, v, w = (row[0] * x + row[1] * y + row[2] for row in to_object)
    u, v = u / w, v / w
    distance = outline(u, v)
    alpha = _step(-distance, 1.2 / radius)  # about a pixel wide: antialiased

    if label is None:  # the background's own colours
        first, second = (palette[i] for i in rng.permutation(len(palette))[:2])
    else:
        hue = (label + rng.uniform(-0.3, 0.3)) / len(CLASSES)
        first, second = (_colour(rng, (0.45, 0.9), (0.3, 1.0), hue) for _ in range(2))
    if abs(float((first - second).mean())) < 0.15:  # keep the texture visible
        second = np.where(first.mean() > 0.5, second * 0.5, 0.5 + second * 0.5).astype(np.float32)
    weight = _texture(rng, u, v, max(rng.uniform(0.28, 0.7), 3.5 / radius), label)
    light, depth = rng.uniform(0, math.tau), rng.uniform(0.05, 0.3)
    shade = 0.95 + depth * math.cos(light) * u + depth * math.sin(light) * v
    shade *= 1 - rng.uniform(0, 0.45) * np.clip(1 + distance / 0.16, 0, 1)  # darker towards the rim
    colour = _blend(first, second, weight) * shade
    rows, cols = slice(max(y0, 0), min(y1, size)), slice(max(x0, 0), min(x1, size))
    inner = (slice(rows.start - y0, rows.stop - y0), slice(cols.start - x0, cols.stop - x0))
    share = float(alpha[inner].sum() / max(alpha.sum(), 1e-4))
    return _Layer(alpha[inner], colour[:, *inner], rows, cols, label, share)


def _arrange(
    rng: np.random.Generator, size: int, palette: list[np.ndarray]
) -> tuple[list[_Layer], list[np.ndarray]]:
    """Places objects and decoys back to front, so that of every object enough stays visible.

    Returns:
        The layers, and for each layer with a label the visible coverage (size, size) in [0, 1].
    """
    objects = int(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]))
    kinds = ["object"] * objects + ["decoy"] * int(rng.integers(0, 2))
    smallest = 30 * (size / 128) ** 2
    layers: list[_Layer] = []
    visible: list[np.ndarray] = []
    full: list[float] = []
    for kind in rng.permutation(kinds):
        label = int(rng.integers(len(CLASSES))) if kind == "object" else None
        for _ in range(6):
            radius = size * float(np.exp(rng.uniform(np.log(0.16), np.log(0.34))))
            layer = _paint_layer(rng, size, label, radius, palette)
            area = float(layer.alpha.sum())
            if label is not None and (layer.inside_share < 0.6 or area < smallest):
                continue
            window = (layer.rows, layer.cols)
            left = [float(seen.sum() - (seen[window] * layer.alpha).sum()) for seen in visible]
            if any(
                rest < max(0.45 * whole, smallest) for rest, whole in zip(left, full, strict=True)
            ):
                continue
            for seen in visible:
                seen[window] *= 1 - layer.alpha
            if label is not None:
                seen = np.zeros((size, size), np.float32)
                seen[window] = layer.alpha
                visible.append(seen)
                full.append(area)
            layers.append(layer)
            break
    return layers, visible


def _lay(
    canvas: np.ndarray, layer: _Layer, offset: tuple[int, int], blur: float, strength: float
) -> None:
    """Lays a layer with its soft drop shadow on the canvas, in place."""
    size, pad = canvas.shape[1], int(3 * blur) + 1
    y0, x0 = layer.rows.start + offset[0] - pad, layer.cols.start + offset[1] - pad
    shadow = Image.fromarray((np.pad(layer.alpha, pad) * 255).astype(np.uint8)).filter(
        ImageFilter.BoxBlur(blur)
    )
    shadow = np.asarray(shadow, np.float32) / 255
    rows = slice(max(y0, 0), min(y0 + shadow.shape[0], size))
    cols = slice(max(x0, 0), min(x0 + shadow.shape[1], size))
    part = shadow[rows.start - y0 : rows.stop - y0, cols.start - x0 : cols.stop - x0]
    canvas[:, rows, cols] *= 1 - strength * part
    under = canvas[:, layer.rows, layer.cols]
    canvas[:, layer.rows, layer.cols] = _blend(under, layer.colour, layer.alpha)


def _expose(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Uneven light, at times a cast shadow, then the camera's white balance, grain and softness.

    Returns:
        (size, size, 3) uint8.
    """
    size = canvas.shape[1]
    light = 1 + rng.uniform(0.1, 0.5) * (_noise(rng, size, 2, 2, 0.5) - 0.5)
    if rng.random() < 0.35:
        v, u = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
        angle = rng.uniform(0, math.tau)
        side = u * math.cos(angle) + v * math.sin(angle) - rng.uniform(-0.25, 0.25)
        light *= 1 - rng.uniform(0.2, 0.5) * _step(side, rng.uniform(0.03, 0.3))
    balance = rng.uniform(0.9, 1.1, 3).astype(np.float32) * rng.uniform(0.8, 1.2)
    image = canvas * light * balance[:, None, None]
    image += rng.uniform(0.005, 0.03) * rng.standard_normal(image.shape, dtype=np.float32)
    pixels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.BoxBlur(rng.uniform(0.1, 0.7))))


def paint_scene(rng: np.random.Generator, size: int) -> Scene:
    """Paints a scene with one to four objects.

    Args:
        rng: Every choice comes from it: the same state paints the same scene.
        size: Side of the square image in pixels.
    """
    canvas, palette = _background(rng, size)
    layers: list[_Layer] = []
    visible: list[np.ndarray] = []
    while not visible:
        layers, visible = _arrange(rng, size, palette)
    direction = rng.uniform(0, math.tau)
    throw, strength = size * rng.uniform(0.01, 0.04), rng.uniform(0.2, 0.6)
    offset = (round(throw * math.sin(direction)), round(throw * math.cos(direction)))
    for layer in layers:
        _lay(canvas, layer, offset, blur=0.6 * throw + 0.5, strength=strength)

    # A pixel belongs to whoever covers most of it.
    ids = np.zeros((size, size), np.uint8)
    most = 1 - np.add.reduce(visible)
    for k, seen in enumerate(visible):
        ids[seen > most] = k + 1
        np.maximum(most, seen, out=most)
    objects = [layer for layer in layers if layer.label is not None]
    return Scene(
        image=_expose(rng, canvas),
        ids=ids,
        labels=[layer.label for layer in objects],
        truncated=[layer.inside_share < 0.98 for layer in objects],
        occluded=[
            float(seen.sum()) < 0.98 * float(layer.alpha.sum())
            for seen, layer in zip(visible, objects, strict=True)
        ],
    )
