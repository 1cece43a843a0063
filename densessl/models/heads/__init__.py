"""Global and dense projection heads."""

from densessl.models.heads.projection import DenseHead, GlobalHead
from densessl.models.heads.propagation import PixelPropagation

__all__ = ["DenseHead", "GlobalHead", "PixelPropagation"]
