"""Views on the worker: draw every random number, decode once, crop. Colour is applied later.

Presets hold the augmentations of the papers; ``MultiView`` makes several views of one image.
"""

import math
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from densessl.errors import UserError
from densessl.numeric import POSITIVE_WHOLE, SHARE, WHOLE, Rule, is_real, is_whole
from densessl.registry import TRANSFORMS
from densessl.structures import SampleKey, ViewRecord
from densessl.suggest import did_you_mean
from densessl.transforms.decode import decode_scale, image_size, read_image
from densessl.transforms.functional import MAX_SIGMA_AT_224
from densessl.transforms.patches import cut_patches

# Decoders hand out read-only arrays; crops only read them.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
NO_SOLARIZE = 2.0
_SIMCLR = dict(scale=(0.08, 1.0), jitter=(0.8, 0.8, 0.8, 0.2))
_BYOL = dict(scale=(0.08, 1.0), jitter=(0.4, 0.4, 0.2, 0.1))
_MOCO_V2 = dict(scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1))
PRESETS = {
    "moco_v1": dict(scale=(0.2, 1.0), jitter=(0.4,) * 4, jitter_prob=1.0, gray_prob=0.2),
    "pirl": dict(scale=(0.08, 1.0), jitter=(0.4, 0.4, 0.4, 0.2), jitter_prob=1.0, gray_prob=0.2),
    "moco_v2": dict(**_MOCO_V2, jitter_prob=0.8, gray_prob=0.2, blur_prob=0.5),
    "simclr": dict(**_SIMCLR, jitter_prob=0.8, gray_prob=0.2, blur_prob=0.5),
    "byol_1": dict(**_BYOL, jitter_prob=0.8, gray_prob=0.2, blur_prob=1.0),
    "byol_2": dict(**_BYOL, jitter_prob=0.8, gray_prob=0.2, blur_prob=0.1, solarize_prob=0.2),
    "amdim": dict(scale=(0.3, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), jitter_prob=0.8, gray_prob=0.25),
    "crop_flip": dict(scale=(0.08, 1.0)),
}


def _numbers(value, count: int) -> bool:
    return isinstance(value, Sequence) and len(value) == count and all(map(is_real, value))


# What the options of a view must be.
_PROB = ("flip_prob", "jitter_prob", "gray_prob", "blur_prob", "solarize_prob", "square")
RULES = {
    "scale": Rule(
        "two numbers, 0 < lowest <= highest <= 1",
        lambda v: _numbers(v, 2) and 0 < v[0] <= v[1] <= 1,
    ),
    "ratio": Rule(
        "two numbers, 0 < lowest <= highest", lambda v: _numbers(v, 2) and 0 < v[0] <= v[1]
    ),
    "jitter": Rule(
        "four numbers, 0 or above, the last one 0.5 at most",
        lambda v: _numbers(v, 4) and min(v) >= 0 and v[3] <= 0.5,
    ),
    "interpolation": Rule("'bilinear' or 'bicubic'", lambda v: v in ("bilinear", "bicubic")),
    **dict.fromkeys(_PROB, SHARE),
    **dict.fromkeys(("size", "grid", "patch"), POSITIVE_WHOLE),
    "stride": WHOLE,
}


@dataclass(frozen=True)
class View:
    """The distribution one view is drawn from.

    Args:
        size: Side of the view in pixels.
        scale: Share of the image's area that the crop covers, lowest and highest.
        ratio: Width over height of the crop, lowest and highest, drawn in the logarithm.
        flip_prob: Probability of mirroring left to right.
        jitter: Strengths b, c, s, h: factors from U(max(0, 1-x), 1+x), hue shift from U(-h, h).
        jitter_prob: Probability of colour jitter.
        gray_prob: Probability of turning gray.
        blur_prob: Probability of a Gaussian blur with sigma from U(.1, 2 * side / 224).
        solarize_prob: Probability of solarization at one half.
        interpolation: "bilinear" or "bicubic", antialiased either way.
        square: Side of a square crop as a share of the image's shorter side, in place of
            ``scale`` and ``ratio``; 0 for those.
        grid: Above 1, the view becomes grid * grid patches, one of each cell, views of their own.
        stride: Above 0, the cells are the patches themselves, one every so many pixels, overlapping
            where it is less than ``patch``; they make a grid of (size - patch) / stride + 1.
        patch: Side of a patch in pixels; ``size`` is then the side of what they are cut from.
        shuffle: Patches come in random order, not row by row.

    Raises:
        UserError: If an option cannot be, a patch is larger than a cell, or the stride does not
            end at the border.
    """

    size: int = 224
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_prob: float = 0.5
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_prob: float = 0.0
    gray_prob: float = 0.0
    blur_prob: float = 0.0
    solarize_prob: float = 0.0
    interpolation: str = "bilinear"
    square: float = 0.0
    grid: int = 1
    stride: int = 0
    patch: int = 64
    shuffle: bool = False

    def __post_init__(self):
        for name, rule in RULES.items():
            if not rule.fits(getattr(self, name)):
                raise UserError(
                    f"{name} of a view in train_dataloader.dataset.transform is "
                    f"{getattr(self, name)!r}.",
                    f"give {rule.words}",
                )
        if self.stride:
            steps, rest = divmod(self.size - self.patch, self.stride)
            if rest or steps < 1 or self.grid != 1:
                raise UserError(
                    f"Patches of {self.patch} pixels, one every {self.stride}, with grid="
                    f"{self.grid}, do not fill a view of {self.size} pixels to its border.",
                    "choose size, patch and stride of that view in train_dataloader.dataset."
                    "transform so that (size - patch) / stride is a whole number, without grid",
                )
        elif self.grid > 1 and self.size // self.grid < self.patch:
            raise UserError(
                f"A view of {self.size} pixels has {self.grid} x {self.grid} cells of "
                f"{self.size // self.grid} pixels, which hold no patch of {self.patch}.",
                "lower patch or raise size of that view in train_dataloader.dataset.transform",
            )

    @property
    def side(self) -> int:
        """Side in pixels of what the network gets: the view, or each of its patches."""
        return self.patch if self.grid > 1 or self.stride else self.size

    def draw(self, rng: random.Random, width: int, height: int) -> ViewRecord:
        """All random numbers of one view of a ``width`` x ``height`` image, as plain numbers."""
        box = self._draw_box(rng, width, height)
        # Drawn whether used or not, so that changing a probability moves nothing else.
        flip = rng.random() < self.flip_prob
        jitter, order = self._draw_jitter(rng)
        gray = rng.random() < self.gray_prob
        sigma = rng.uniform(0.1, max(0.1, MAX_SIGMA_AT_224 * self.side / 224))
        blur = rng.random() < self.blur_prob
        threshold = 0.5 if rng.random() < self.solarize_prob else NO_SOLARIZE
        return ViewRecord(
            box, flip, (width, height), jitter, order, gray, sigma if blur else 0.0, threshold
        )

    def _draw_jitter(self, rng: random.Random) -> tuple[list[float], list[int]]:
        *factors, hue = self.jitter
        drawn = [rng.uniform(max(0.0, 1 - x), 1 + x) for x in factors]
        drawn.append(rng.uniform(-hue, hue))
        order = rng.sample(range(4), 4)
        return (drawn if rng.random() < self.jitter_prob else [1.0, 1.0, 1.0, 0.0]), order

    def cut(
        self, image: np.ndarray, record: ViewRecord, rng: random.Random
    ) -> list[tuple[torch.Tensor, ViewRecord]]:
        """The view, or its patches, out of a decoded image.

        Args:
            image: Contiguous uint8 (H, W, 3), perhaps decoded smaller than the source.
            record: What ``draw`` gave: plain numbers.
            rng: Goes on where ``draw`` stopped: places, order and jitter of patches.

        Returns:
            Pixels and records, whose boxes are what was really cut, to the decoded pixel.
        """
        height, width = image.shape[:2]
        x_scale, y_scale = width / record.source_size[0], height / record.source_size[1]
        x0, y0, x1, y1 = record.box
        x0, x1 = round(x0 * x_scale), round(x1 * x_scale)
        y0, y1 = round(y0 * y_scale), round(y1 * y_scale)
        pixels = crop_and_resize(image, (x0, y0, x1, y1), self.size, self.interpolation)
        record = record._replace(box=(x0 / x_scale, y0 / y_scale, x1 / x_scale, y1 / y_scale))
        if self.grid == 1 and not self.stride:
            return [(pixels, record)]
        patches = cut_patches(pixels, record, *self._cells(), self.patch, self.shuffle, rng)
        jitters = [self._draw_jitter(rng) for _ in patches]
        return [
            (patch, own._replace(jitter=jitter, jitter_order=order))
            for (patch, own), (jitter, order) in zip(patches, jitters, strict=True)
        ]

    def _cells(self) -> tuple[int, int, int]:
        """Cells along each side, the side of one, and pixels from one to the next."""
        if self.stride:
            return (self.size - self.patch) // self.stride + 1, self.patch, self.stride
        return self.grid, self.size // self.grid, self.size // self.grid

    def _draw_box(self, rng: random.Random, width: int, height: int) -> tuple[int, int, int, int]:
        """Random resized crop (Inception, 1409.4842): ten tries, then the central crop."""
        if self.square:
            side = max(1, round(self.square * min(width, height)))
            x, y = rng.randrange(width - side + 1), rng.randrange(height - side + 1)
            return x, y, x + side, y + side
        for _ in range(10):
            area = width * height * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(*map(math.log, self.ratio)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                x, y = rng.randrange(width - w + 1), rng.randrange(height - h + 1)
                return x, y, x + w, y + h
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        w = min(width, max(1, round(height * ratio)))
        h = min(height, max(1, round(width / ratio)))
        x, y = (width - w) // 2, (height - h) // 2
        return x, y, x + w, y + h


def crop_and_resize(
    image: np.ndarray, box, size: int | tuple[int, int], interpolation: str
) -> torch.Tensor:
    """Antialiased crop of a uint8 (H, W, 3) image: (size, size, 3) uint8.

    Args:
        image: Contiguous uint8 pixels.
        box: Integer x0, y0, x1, y1.
        size: Side of the result, or its height and width.
        interpolation: "bilinear" or "bicubic".
    """
    x0, y0, x1, y1 = box
    # Torch's batch axis leaves the strides of channels-last, NumPy's does not: a copy more.
    crop = torch.from_numpy(image)[None, y0:y1, x0:x1].permute(0, 3, 1, 2)
    view = F.interpolate(crop, size, mode=interpolation, antialias=True)
    return view[0].permute(1, 2, 0).contiguous()


def _view(spec: str | dict, size: int) -> View:
    options = dict(preset=spec) if isinstance(spec, str) else dict(spec)
    preset = options.pop("preset", None)
    if preset is not None and preset not in PRESETS:
        raise UserError(
            f"There is no view preset '{preset}'{did_you_mean(preset, PRESETS)}.",
            f"use one of: {', '.join(PRESETS)}",
        )
    try:
        return View(**{"size": size, **PRESETS.get(preset, {}), **options})
    except TypeError as error:
        fields = View.__dataclass_fields__
        wrong = next(name for name in options if name not in fields)
        raise UserError(
            f"A view has no option '{wrong}'{did_you_mean(wrong, fields)}.",
            f"use one of: {', '.join(fields)}",
        ) from error


def _stages(size: int | Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """First epoch and side of each stage of a schedule, in order."""
    try:
        stages = sorted((begin, side) for begin, side in size)
    except (TypeError, ValueError):
        stages = [(0, size)]
    whole = all(is_whole(number) for stage in stages for number in stage)
    if not stages or not whole or stages[0][0] != 0 or min(side for _, side in stages) < 1:
        raise UserError(
            f"train_dataloader.dataset.transform.size is {size}.",
            "give a side in pixels, or a schedule of (first epoch, side) in whole numbers that "
            "begins at epoch 0: [(0, 160), (60, 192), (120, 224)]",
        )
    return stages


class Plan(NamedTuple):
    """All that is decided about the views of one image before it is decoded."""

    views: list[View]
    records: list[ViewRecord]  # of plain numbers
    rngs: list[random.Random]  # each goes on where ``View.draw`` stopped
    scale: float  # 1, 1/2, 1/4 or 1/8: no crop is upsampled that need not be


@TRANSFORMS.register_module()
class MultiView:
    """Several views of one image, decoded once at no more detail than the crops can use.

    Args:
        views: For each view the name of a preset or a dict of ``View`` options; the key
            ``preset`` in such a dict gives its defaults.
        size: Side of every view that does not set its own. A list of pairs makes it a schedule:
            ``[(0, 160), (60, 192), (120, 224)]`` is 160 pixels for the first sixty epochs, then
            192, then 224.
        shared_flip: Whether all views of an image are mirrored, or none, as the first one is.

    Raises:
        UserError: If a schedule does not begin at epoch 0, or is no list of pairs of whole numbers;
            if there is no view or no such preset, or an option of a view cannot be.
    """

    def __init__(
        self,
        views: list[str | dict],
        size: int | Sequence[tuple[int, int]] = 224,
        shared_flip: bool = False,
    ):
        if isinstance(views, str) or not views or not all(isinstance(v, str | dict) for v in views):
            raise UserError(
                f"train_dataloader.dataset.transform.views is {views!r}.",
                "give a list of presets and dicts, one for each view",
            )
        self.stages = [
            (begin, [_view(spec, side) for spec in views]) for begin, side in _stages(size)
        ]
        self.shared_flip = shared_flip

    @property
    def size(self) -> int:
        """Side of the largest view of the last stage."""
        return self.size_at(self.stages[-1][0])

    def size_at(self, epoch: int) -> int:
        """Side of the largest view of an epoch, counted from 0; kept in checkpoints."""
        return max(int(view.size) for view in self.views_at(epoch))

    def views_at(self, epoch: int) -> list[View]:
        """The views of an epoch, counted from 0.

        A sample's key names its epoch, so workers need not be told, and a resumed run is right.
        """
        return next(views for begin, views in reversed(self.stages) if begin <= epoch)

    def __call__(
        self, data: bytes, key: SampleKey
    ) -> tuple[tuple[torch.Tensor, ...], tuple[ViewRecord, ...]]:
        """Decodes ``data`` and makes the views that ``key`` determines.

        Returns:
            V uint8 views (H, W, 3) and their V records of plain numbers; patches are views too.

        Raises:
            ImageError: If the image cannot be decoded.
        """
        plan = self.plan(data, key)
        image = read_image(data, plan.scale)
        made = [
            pair
            for view, record, rng in zip(*plan[:3], strict=True)
            for pair in view.cut(image, record, rng)
        ]
        views, records = zip(*made, strict=True)
        return views, records

    def plan(self, data: bytes, key: SampleKey) -> Plan:
        """Draws the random numbers of all views and decides how finely to decode.

        Raises:
            ImageError: As ``image_size``.
        """
        width, height = image_size(data)
        views = self.views_at(key.epoch)
        # The standard library's generator: seeding numpy's costs more than all the draws.
        rngs = [
            random.Random(f"{key.seed} {key.epoch} {key.index} {number}")
            for number in range(len(views))
        ]
        records = [view.draw(rng, width, height) for view, rng in zip(views, rngs, strict=True)]
        if self.shared_flip:
            records = [record._replace(flip=records[0].flip) for record in records]
        # Every view needs at least its own detail, so the largest scale of all decides.
        scale = max(
            decode_scale((x1 - x0, y1 - y0), view.size)
            for view, (x0, y0, x1, y1) in zip(views, (r.box for r in records), strict=True)
        )
        return Plan(views, records, rngs, scale)
