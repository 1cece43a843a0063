"""Losses: pure functions of tensors, with the symbol names of their papers."""

from densessl.losses.info_nce import info_nce
from densessl.losses.nce import instance_softmax, nce, nce_partition, pirl_nce
from densessl.losses.pixel_consistency import pixel_consistency

__all__ = [
    "info_nce",
    "instance_softmax",
    "nce",
    "nce_partition",
    "pirl_nce",
    "pixel_consistency",
]
