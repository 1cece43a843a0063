"""Noise-contrastive estimation against a bank, with its constant Z."""

import torch
from torch import Tensor, nn

from densessl.losses import nce, nce_partition
from densessl.models.distributed import gather


class NoiseContrast(nn.Module):
    """The ``nce`` loss and its Z: estimated from the first batch over all ranks, then frozen.

    Z is part of the state. With accumulation the first batch is the first micro-batch. In eval mode
    nothing is frozen.

    Args:
        num_samples: Entries of the bank that the negatives are drawn from.
        temperature: The divisor of every logit.

    Source: InstDisc (1805.01978), section 3.2.
    """

    def __init__(self, num_samples: int, temperature: float):
        super().__init__()
        self.register_buffer("log_z", torch.tensor(torch.nan))
        self.num_samples = num_samples
        self.temperature = temperature
        self._estimated = False  # so that training asks the device only once

    def forward(self, f: Tensor, v: Tensor, negatives: Tensor) -> Tensor:
        """See ``nce``."""
        log_z = self.log_z
        if not self._estimated and log_z.isnan():
            z = nce_partition(f.detach(), negatives, self.num_samples, self.temperature)
            log_z = gather(z.view(1)).mean().log().to(log_z)
            if self.training:
                self.log_z.copy_(log_z)
        self._estimated |= self.training
        return nce(f, v, negatives, log_z, self.num_samples, self.temperature)
