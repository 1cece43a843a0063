"""What predicts a row of cells from the rows above it."""

from collections.abc import Sequence

from torch import Tensor, nn

from densessl.registry import MODELS


def _masked_block(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, (1, 3), padding=(0, 1)),
        nn.ZeroPad2d((0, 0, 1, 0)),  # a row on top: the next one sees a cell and that above it
        nn.Conv2d(width, width, (2, 1)),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, channels, 1),
    )


@MODELS.register_module()
class MaskedContext(nn.Module):
    """Residual blocks of masked convolutions: a cell sees its own row and those above, none below.

    Has no norm, which would bring in what a cell must not see.

    Args:
        in_channels: Channels of a cell, before and after; methods fill it in.
        width: Channels inside a block.
        num_blocks: Blocks; each lets a cell see one row further up.

    Source: CPC v2 (1905.09272), appendix.
    """

    def __init__(self, in_channels: int, width: int = 256, num_blocks: int = 5):
        super().__init__()
        self.blocks = nn.ModuleList(_masked_block(in_channels, width) for _ in range(num_blocks))

    def forward(self, z: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        for block in self.blocks:
            z = z + block(z)
        return z.relu()


class RowPredictor(nn.Module):
    """Predicts cells some rows below: ``W_k c`` for each k, to be compared with ``V z``.

    Args:
        context: Makes c of z.
        channels: Of z and c.
        offsets: The k, in rows.
        dim: Channels in which predictions and cells are compared.

    Source: CPC (1807.03748), equation 3.
    """

    def __init__(self, context: nn.Module, channels: int, offsets: Sequence[int], dim: int):
        super().__init__()
        self.context = context
        self.offsets = tuple(offsets)
        self.predict = nn.ModuleList(nn.Conv2d(channels, dim, 1, bias=False) for _ in offsets)
        self.target = nn.Conv2d(channels, dim, 1, bias=False)

    def forward(self, z: Tensor) -> tuple[list[Tensor], Tensor]:
        """(B, C, H, W) -> for each k (B, dim, H - k, W), and the targets (B, dim, H, W)."""
        c = self.context(z)
        predictions = [
            predict(c[:, :, : c.shape[2] - k])
            for predict, k in zip(self.predict, self.offsets, strict=True)
        ]
        return predictions, self.target(z)
