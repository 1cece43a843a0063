"""The memory bank: one remembered embedding for each image of the data set."""

import torch
from torch import Tensor, nn

from densessl.precision import l2_normalize


class MemoryBank(nn.Module):
    """An embedding per image; starts as random unit vectors and is part of the state.

    Args:
        num_samples: Images of the data set.
        dim: Channels of an embedding.
        momentum: The old value's share that is kept at each update.
    """

    def __init__(self, num_samples: int, dim: int, momentum: float = 0.5):
        super().__init__()
        self.register_buffer("features", l2_normalize(torch.randn(num_samples, dim)))
        self.momentum = momentum

    @torch.no_grad()
    def update(self, index: Tensor, features: Tensor) -> None:
        """``v <- l2(m * v + (1 - m) * f)``; with several ranks give what all of them have seen.

        Args:
            index: (N,) int64, places of the images; each image once.
            features: (N, dim) unit vectors.
        """
        old = self.features[index]
        new = l2_normalize(torch.lerp(features.to(old.dtype), old, self.momentum))
        self.features.index_copy_(0, index, new.to(old.dtype))
