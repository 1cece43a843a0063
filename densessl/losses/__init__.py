"""Losses: pure functions of tensors, with the symbol names of their papers."""

from densessl.losses.info_nce import info_nce

__all__ = ["info_nce"]
