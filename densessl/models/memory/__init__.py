"""Memories of past embeddings."""

from densessl.models.memory.bank import MemoryBank
from densessl.models.memory.contrast import NoiseContrast
from densessl.models.memory.queue import FeatureQueue, queue_size_for

__all__ = [
    "FeatureQueue",
    "MemoryBank",
    "NoiseContrast",
    "queue_size_for",
]
