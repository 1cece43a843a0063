"""The shapes of the synthetic scenes: (u, v) -> negative inside, about the distance to the edge."""

import math
from collections.abc import Callable

import numpy as np

_STAR_STEP = 2 * math.pi / 5


def _disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot(u, v) - 0.95


def _ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(u, v) - 0.7) - 0.26


def _box(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) - 0.8


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    x, y = np.abs(u), np.abs(v)
    return np.maximum(np.minimum(x, y) - 0.3, np.maximum(x, y) - 0.95)


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    # Fold the plane onto a tenth of the star: a tip at angle pi/5 and radius 1, a notch at angle 0.
    radius, notch = np.hypot(u, v), 0.45
    angle = np.abs(np.mod(np.arctan2(v, u), _STAR_STEP) - _STAR_STEP / 2)
    tip_x, tip_y = math.cos(math.pi / 5), math.sin(math.pi / 5)
    length = math.hypot(tip_x - notch, tip_y)
    return (
        (radius * np.cos(angle) - notch) * tip_y - radius * np.sin(angle) * (tip_x - notch)
    ) / length


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    leaning = math.sqrt(0.75) * np.abs(u) - 0.5 * v
    return np.maximum(leaning, v) - 0.52


OUTLINES: tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...] = (
    _disc,
    _ring,
    _box,
    _cross,
    _star,
    _triangle,
)


def decoy(rng: np.random.Generator) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """An outline that belongs to no class: a lumpy blob, a long bar, a crescent."""
    kind = rng.integers(3)
    if kind == 0:
        waves = [(k, rng.uniform(0.1, 0.2), rng.uniform(0, 6)) for k in (2, 3, 5)]

        def blob(u, v):
            angle = np.arctan2(v, u)
            lumps = sum(size * np.cos(k * angle + phase) for k, size, phase in waves)
            return np.hypot(u, v) - 0.65 - lumps

        return blob
    if kind == 1:
        half, bend = rng.uniform(0.06, 0.16), rng.uniform(-0.25, 0.25)
        return lambda u, v: np.maximum(
            np.abs(u) - 1.05, np.abs(v + bend * u * u) - half * (1.2 - 0.5 * u)
        )
    return lambda u, v: np.maximum(np.hypot(u, v) - 0.95, 0.85 - np.hypot(u - 0.5, v))
