"""The queue of past keys."""

import math
from collections.abc import Callable

import torch
from mmengine.dist import get_world_size
from torch import Tensor, nn

from densessl.models.distributed import start_gather
from densessl.precision import full_precision, l2_normalize


def fill_queue_size(config: dict, num_images: int, most: int) -> dict:
    """A method's config with ``queue_size`` filled in from the data where it is not given.

    The default is the largest power of two that is at most a quarter of the images.

    Args:
        config: Of the method.
        num_images: Images of the data set.
        most: The largest default.
    """
    fitting = min(2 ** int(math.log2(max(num_images // 4, 1))), most)
    return {**config, "queue_size": config.get("queue_size") or fitting}


@torch.no_grad()
@full_precision
def _nearest(queries: Tensor, keys: Tensor) -> Tensor:
    return keys[(queries @ keys.T).argmax(1)]


class FeatureQueue(nn.Module):
    """A ring of the last ``size`` keys; starts as random unit vectors and is part of the state.

    A method reads it during a step and gives it the keys of each micro-batch to ``remember``;
    they enter together, those of all ranks, when it calls ``advance`` after the step.

    Args:
        size: Number of keys kept.
        dim: Channels of a key.
    """

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.register_buffer("features", l2_normalize(torch.randn(size, dim)))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self._new: list[Callable[[], Tensor]] = []

    def remember(self, keys: Tensor) -> None:
        """Keeps (N, dim) keys of this rank for ``advance``; ``features`` stay as they are. In eval
        mode it does nothing."""
        if self.training:
            self._new.append(start_gather(keys))

    def advance(self) -> None:
        """Enqueues what all ranks remember; once per optimizer step."""
        if not self._new:  # a step without a loss of this method
            return
        gathered = [arrived().chunk(get_world_size()) for arrived in self._new]
        # Rank by rank, each with its micro-batches in order, as one process would have them.
        self.enqueue(torch.cat([keys for rank in zip(*gathered, strict=True) for keys in rank]))
        self._new.clear()

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Writes (N, dim) keys over the oldest ones; any N, wrapping around at the end."""
        size = len(self.features)
        kept = keys[-size:]
        skipped = len(keys) - len(kept)
        # Positions stay on the device: no host sync.
        places = self.pointer + skipped + torch.arange(len(kept), device=kept.device)
        self.features.index_copy_(0, places % size, kept.to(self.features.dtype))
        self.pointer.add_(len(keys)).remainder_(size)

    def nearest(self, queries: Tensor) -> Tensor:
        """The key of highest product with each of (N, dim) queries: (N, dim), without gradient."""
        return _nearest(queries, self.features)

    def warnings(self, num_images: int, harm: str = "a false negative") -> list[str]:
        """What to say when the queue is long for ``num_images``.

        Args:
            num_images: Images of the data set.
            harm: What an image's own old key is to it.
        """
        size = len(self.features)
        if size <= num_images / 2:
            return []
        return [
            f"the queue of {size} keys is long for {num_images} images: "
            f"{min(1, size / num_images):.0%} of them meet an old key of their own in it, {harm}. "
            "Leave model.queue_size at None to size it from the data"
        ]
