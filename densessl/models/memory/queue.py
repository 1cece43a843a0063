"""The queue of past keys."""

import torch
from torch import Tensor, nn

from densessl.precision import l2_normalize


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
