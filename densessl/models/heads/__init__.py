"""Global and dense projection heads."""

from densessl.models.heads.projection import DenseHead, GlobalHead

__all__ = ["DenseHead", "GlobalHead"]
