"""The queue of past keys."""

import math

import torch
from torch import Tensor, nn

from densessl.precision import full_precision, l2_normalize


def queue_size_for(num_images: int, most: int) -> int:
    """The largest power of two that is at most a quarter of the images, at most ``most``."""
    return min(2 ** int(math.log2(max(num_images // 4, 1))), most)


@torch.no_grad()
@full_precision
def _nearest(queries: Tensor, keys: Tensor) -> Tensor:
    return keys[(queries @ keys.T).argmax(1)]


class FeatureQueue(nn.Module):
    """A ring of the last ``size`` keys; starts as random unit vectors and is part of the state.

    Args:
        size: Number of keys kept.
        dim: Channels of a key.
    """

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.register_buffer("features", l2_normalize(torch.randn(size, dim)))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

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

    def warnings(self, num_images: int) -> list[str]:
        """What to say when the queue is long for ``num_images``."""
        size = len(self.features)
        if size <= num_images / 2:
            return []
        return [
            f"the queue of {size} keys is long for {num_images} images: many of them are the "
            "image's own. Leave model.queue_size at None to size it from the data"
        ]
