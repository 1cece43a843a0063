"""Memories of past embeddings."""

from densessl.models.memory.queue import FeatureQueue, queue_size_for

__all__ = ["FeatureQueue", "queue_size_for"]
