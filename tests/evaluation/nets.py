"""A net whose features are known."""

import torch
from torch import nn


class Colours(nn.Module):
    """A net that averages the colour over squares of 16 pixels."""

    out_channels = (3,)

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return (nn.functional.avg_pool2d(x, 16) * self.scale,)
