"""What flows from the data to the method: views together with the record of how each was made."""

from typing import NamedTuple

import torch
from torch import Tensor

SEEDS = range(2**32)  # numpy's global generator takes no others


class SampleKey(NamedTuple):
    """What a sampler yields: all that determines the random numbers of one sample."""

    seed: int
    epoch: int
    index: int


class ViewRecord(NamedTuple):
    """How one view was made. On the worker each field holds plain numbers, in a batch a tensor
    with a leading axis B. Parameters that were not drawn hold their neutral value, with which the
    operation changes nothing."""

    box: Tensor  # (B, 4) float32, x0 y0 x1 y1 of the crop in source pixels, after EXIF rotation
    flip: Tensor  # (B,) bool, mirrored left to right after the crop
    source_size: Tensor  # (B, 2) float32, width and height of the source image
    jitter: Tensor  # (B, 4) float32, brightness, contrast, saturation factors and hue shift
    jitter_order: Tensor  # (B, 4) int64, the order in which those four are applied
    gray: Tensor  # (B,) bool
    blur_sigma: Tensor  # (B,) float32, pixels of the view; 0 is no blur
    solarize: Tensor  # (B,) float32, threshold in [0, 1]; 2 is no solarization


# How many numbers of an image each field has, None for one without an axis, and of which type.
RECORD_FIELDS = ViewRecord(
    box=(4, torch.float32),
    flip=(None, torch.bool),
    source_size=(2, torch.float32),
    jitter=(4, torch.float32),
    jitter_order=(4, torch.int64),
    gray=(None, torch.bool),
    blur_sigma=(None, torch.float32),
    solarize=(None, torch.float32),
)


class ViewBatch(NamedTuple):
    """A batch of V views of each of B images."""

    views: tuple[Tensor, ...]  # V of (B, H, W, 3) uint8; after the preprocessor (B, 3, H, W) float
    records: tuple[ViewRecord, ...]  # V records
    index: Tensor  # (B,) int64, place of the image in the data list
    broken: Tensor  # (B,) int64, the unreadable image this sample stands in for, or -1

    def chunk(self, count: int) -> list["ViewBatch"]:
        """Splits the batch into ``count`` micro-batches of equal size, in order.

        Raises:
            ValueError: If the batch does not divide.
        """
        return _chunk(self, count)

    def both_ways(self) -> "ViewBatch":
        """The batch of two views, then the same images once more with their views swapped."""
        one, two = self.views
        first, second = self.records
        return ViewBatch(
            views=(torch.cat([one, two]), torch.cat([two, one])),
            records=(join_records(first, second), join_records(second, first)),
            index=self.index.repeat(2),
            broken=self.broken.repeat(2),
        )


class PackedBatch(NamedTuple):
    """A ``ViewBatch`` on its way from a worker to the device, in a handful of tensors.

    Every tensor costs the training process a file descriptor, a copy into pinned memory and one to
    the device: nine for each view are more work than all else that it does for a batch.
    """

    views: tuple[Tensor, ...]  # for each size of views (B, V', H, W, 3) uint8
    places: tuple[tuple[int, ...], ...]  # which of the V views those V' are
    numbers: Tensor  # (B, V, 18) float32, the fields of the records side by side
    keys: Tensor  # (B, 2) int64, index and broken

    @property
    def index(self) -> Tensor:
        """As ``ViewBatch.index``."""
        return self.keys[:, 0]

    @property
    def broken(self) -> Tensor:
        """As ``ViewBatch.broken``."""
        return self.keys[:, 1]

    def chunk(self, count: int) -> list["PackedBatch"]:
        """As ``ViewBatch.chunk``."""
        return _chunk(self, count)

    def unpack(self) -> ViewBatch:
        """The batch itself; its views and most of its records are views of these tensors."""
        views = {}
        for stack, places in zip(self.views, self.places, strict=True):
            views |= zip(places, stack.unbind(1), strict=True)
        columns = self.numbers.split([width or 1 for width, _ in RECORD_FIELDS], dim=2)
        fields = [
            (column.squeeze(2) if width is None else column).to(dtype).unbind(1)
            for column, (width, dtype) in zip(columns, RECORD_FIELDS, strict=True)
        ]
        return ViewBatch(
            views=tuple(views[place] for place in sorted(views)),
            records=tuple(ViewRecord(*values) for values in zip(*fields, strict=True)),
            index=self.index,
            broken=self.broken,
        )


def join_records(*records: ViewRecord) -> ViewRecord:
    """The records of views that are put together along their first axis."""
    return ViewRecord(*map(torch.cat, zip(*records, strict=True)))


def _chunk(batch, count: int) -> list:
    size, rest = divmod(len(batch.index), count)
    if rest:
        raise ValueError(f"a batch of {len(batch.index)} does not split into {count}")
    return [_select(batch, slice(i * size, (i + 1) * size)) for i in range(count)]


def _select(value, part: slice):
    if isinstance(value, Tensor):
        return value[part]
    if isinstance(value, int):
        return value
    members = [_select(member, part) for member in value]
    return type(value)(*members) if hasattr(value, "_fields") else tuple(members)
