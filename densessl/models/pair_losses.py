"""Losses of two views' embeddings, for configs: any of them fits any ``TwoView`` method.

A loss that takes other rows as ``negatives`` says so, and is then told of each row's ``group``:
rows that share a cell of the second view are no negatives of each other.
"""

from torch import Tensor, nn

from densessl.losses import barlow_twins, batch_hard_triplet, nt_xent, vicreg
from densessl.registry import MODELS


@MODELS.register_module()
class NTXent(nn.Module):
    """See ``densessl.losses.nt_xent``."""

    negatives = True

    def __init__(self, temperature: float = 0.1):
        super().__init__()
        self.temperature = temperature

    def forward(self, z1: Tensor, z2: Tensor, group: Tensor | None = None) -> Tensor:
        return nt_xent(z1, z2, self.temperature, group)


@MODELS.register_module()
class BarlowTwinsLoss(nn.Module):
    """See ``densessl.losses.barlow_twins``."""

    def __init__(self, lambd: float = 0.0051):
        super().__init__()
        self.lambd = lambd

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        return barlow_twins(z1, z2, self.lambd)


@MODELS.register_module()
class VICRegLoss(nn.Module):
    """See ``densessl.losses.vicreg``."""

    def __init__(self, sim_weight: float = 25, var_weight: float = 25, cov_weight: float = 1):
        super().__init__()
        self.weights = (sim_weight, var_weight, cov_weight)

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        return vicreg(z1, z2, *self.weights)


@MODELS.register_module()
class BatchHardTriplet(nn.Module):
    """See ``densessl.losses.batch_hard_triplet``."""

    negatives = True

    def __init__(self, margin: float = 0.3):
        super().__init__()
        self.margin = margin

    def forward(self, z1: Tensor, z2: Tensor, group: Tensor | None = None) -> Tensor:
        return batch_hard_triplet(z1, z2, self.margin, group)
