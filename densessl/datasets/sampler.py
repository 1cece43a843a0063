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
        self._length = None

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch, by ``PretrainLoop`` or a loop of your own."""
        self.epoch = epoch

    def follow_on(self, batch: int) -> None:
        """Lets epochs of whole batches follow each other without end.

        The workers then begin an epoch while the last batches of the one before are trained on;
        with few images a wait at every epoch's start would be most of the time.

        Args:
            batch: Samples in a batch.
        """
        self._length = len(self) // batch * batch

    def __len__(self) -> int:
        return self.size // self.world_size

    def __iter__(self) -> Iterator[SampleKey]:
        start, self.start = self.start, 0
        yield from self._epoch(self.epoch, start, self._length or len(self))
        while self._length:
            self.epoch += 1
            yield from self._epoch(self.epoch, 0, self._length)

    def _epoch(self, epoch: int, start: int, stop: int) -> Iterator[SampleKey]:
        generator = torch.Generator().manual_seed(self.seed * 1000003 + epoch)
        order = torch.randperm(self.size, generator=generator)[self.rank :: self.world_size]
        for index in order[start:stop].tolist():
            yield SampleKey(self.seed, epoch, index)
