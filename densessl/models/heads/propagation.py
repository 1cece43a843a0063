"""Pixel propagation: each cell becomes a mean of the cells like it."""

import torch
from torch import Tensor, nn

from densessl.precision import full_precision, l2_normalize


class PixelPropagation(nn.Module):
    """``y_i = l2(sum_j max(cos(x_i, x_j), 0)^gamma * l2(g(x_j)))``, g one 1x1 convolution.

    Gradient flows through the similarity too.

    Args:
        channels: Of the cells, before and after.
        gamma: Sharpness of the similarity.

    Source: PixPro (2011.10043), equations 2 and 3.
    """

    def __init__(self, channels: int, gamma: float = 2.0):
        super().__init__()
        self.transform = nn.Conv2d(channels, channels, 1)
        self.gamma = gamma

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W) unit vectors."""
        return _propagate(x.flatten(2), self.transform(x).flatten(2), self.gamma).view_as(x)


@full_precision
def _propagate(x_BCN: Tensor, g_BCN: Tensor, gamma: float) -> Tensor:
    x_BCN = l2_normalize(x_BCN)
    similarity_BNN = torch.bmm(x_BCN.transpose(1, 2), x_BCN).clamp(min=0) ** gamma
    # The similarity is symmetric, so it may stand on either side.
    return l2_normalize(torch.bmm(l2_normalize(g_BCN), similarity_BNN))
