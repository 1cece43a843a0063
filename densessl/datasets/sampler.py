"""A new order every epoch, the same for any number of workers, resumable inside an epoch."""

from collections.abc import Iterator, Sized

import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from densessl.registry import DATA_SAMPLERS
from densessl.structures import SampleKey


@DATA_SAMPLERS.register_module()
class ViewSampler(Sampler):
    """Yields ``SampleKey(seed, epoch, index)``, so that workers need to know nothing else.

    Args:
        dataset: Anything with a length.
        seed: Seed of the order and of every sample's random numbers; None agrees on one.
    """

    def __init__(self, dataset: Sized, seed: int | None = None):
        self.rank, self.world_size = get_dist_info()
        self.size = len(dataset)
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self.start = 0  # samples of this epoch that this rank has already seen, set on resume

    def set_epoch(self, epoch: int) -> None:
        """Called by mmengine before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size // self.world_size

    def __iter__(self) -> Iterator[SampleKey]:
        generator = torch.Generator().manual_seed(self.seed * 1000003 + self.epoch)
        order = torch.randperm(self.size, generator=generator)[self.rank :: self.world_size]
        start, self.start = self.start, 0
        for index in order[start : len(self)].tolist():
            yield SampleKey(self.seed, self.epoch, index)
