"""Memories of past embeddings."""

from densessl.models.memory.queue import FeatureQueue

__all__ = ["FeatureQueue"]
