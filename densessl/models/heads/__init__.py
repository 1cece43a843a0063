"""Projection heads, predictors and what else comes after a backbone."""

from densessl.models.heads.context import MaskedContext, RowPredictor
from densessl.models.heads.projection import DenseHead, GlobalHead
from densessl.models.heads.propagation import PixelPropagation
from densessl.models.heads.shortcut import ShortcutHead

__all__ = [
    "DenseHead",
    "GlobalHead",
    "MaskedContext",
    "PixelPropagation",
    "RowPredictor",
    "ShortcutHead",
]
