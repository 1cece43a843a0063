"""Where images come from, and in which order."""

from densessl.datasets.collate import collate_views
from densessl.datasets.images import (
    CocoImages,
    FileList,
    ImageDataset,
    ImageFolder,
    ImageNet,
    VOCImages,
)
from densessl.datasets.sampler import ViewSampler
from densessl.datasets.shards import TarShards

__all__ = [
    "CocoImages",
    "FileList",
    "ImageDataset",
    "ImageFolder",
    "ImageNet",
    "TarShards",
    "VOCImages",
    "ViewSampler",
    "collate_views",
]
