"""What flows from the data to the method: views together with the record of how each was made."""

from typing import NamedTuple

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
        size, rest = divmod(len(self.index), count)
        if rest:
            raise ValueError(f"a batch of {len(self.index)} does not split into {count}")
        return [_select(self, slice(i * size, (i + 1) * size)) for i in range(count)]


def _select(value, part: slice):
    if isinstance(value, Tensor):
        return value[part]
    members = [_select(member, part) for member in value]
    return type(value)(*members) if hasattr(value, "_fields") else tuple(members)
