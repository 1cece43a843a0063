"""Losses: pure functions of tensors, with the symbol names of their papers."""

from densessl.losses.info_nce import info_nce
from densessl.losses.pixel_consistency import pixel_consistency

__all__ = ["info_nce", "pixel_consistency"]
