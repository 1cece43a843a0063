"""The heads of Deep InfoMax and AMDIM: encode each side, then take products."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densessl.models.heads.projection import DenseHead
from densessl.registry import MODELS


@MODELS.register_module()
class ShortcutHead(DenseHead):
    """1x1 convolutions beside a linear shortcut that starts near the identity, then LayerNorm.

    Takes vectors too, as maps of one cell. The LayerNorm is over the channels of a cell.

    Args:
        in_channels: Channels of a cell; methods fill it in.
        hidden_channels: Widths of the hidden layers.
        out_channels: Width of the embedding.
        norm: Puts a BatchNorm before each ReLU.

    Source: Deep InfoMax (1808.06670), appendix: the encode-and-dot architecture.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: Sequence[int] = (2048,),
        out_channels: int = 2048,
        norm: bool = True,
    ):
        super().__init__(in_channels, hidden_channels, out_channels, norm)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        nn.init.uniform_(self.shortcut.weight, -0.01, 0.01)
        with torch.no_grad():
            self.shortcut.weight[:, :, 0, 0].fill_diagonal_(1)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) or (B, C) -> the same with ``out_channels``, not normalised to length."""
        cells = features if features.ndim == 4 else features[:, :, None, None]
        encoded = self.mlp(cells) + self.shortcut(cells)
        encoded = self.norm(encoded.movedim(1, -1)).movedim(-1, 1)
        return encoded if features.ndim == 4 else encoded.flatten(1)
