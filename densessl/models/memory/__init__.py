"""Memories of past embeddings."""

from densessl.models.memory.bank import MemoryBank
from densessl.models.memory.contrast import NoiseContrast
from densessl.models.memory.queue import FeatureQueue, fill_queue_size

__all__ = [
    "FeatureQueue",
    "MemoryBank",
    "NoiseContrast",
    "fill_queue_size",
]
