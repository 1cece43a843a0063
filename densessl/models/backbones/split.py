"""Backbones that see some channels of the image each, as CMC's two networks do."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densessl.errors import UserError
from densessl.models.backbones.resnet import ResNet
from densessl.numeric import POSITIVE, POSITIVE_WHOLE
from densessl.registry import MODELS


class SplitBackbone(nn.Module):
    """Several backbones side by side; as one backbone it gives their maps concatenated.

    Args:
        parts: One backbone for each entry of ``channels``.
        channels: How many of the image's channels each part sees, in order.
    """

    def __init__(self, parts: Sequence[nn.Module], channels: Sequence[int]):
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.channels = tuple(channels)
        self.out_channels = tuple(
            map(sum, zip(*(part.out_channels for part in parts), strict=True))
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, sum of ``channels``, H, W) -> each stage's maps, concatenated over channels."""
        return tuple(torch.cat(maps, dim=1) for maps in zip(*self.separate(x), strict=True))

    def separate(self, x: Tensor) -> list[tuple[Tensor, ...]]:
        """What each part gives."""
        pieces = x.split(self.channels, dim=1)
        return [part(piece) for part, piece in zip(self.parts, pieces, strict=True)]


@MODELS.register_module()
class SplitResNet(SplitBackbone):
    """ResNets of a fraction of the width, one for each group of the image's channels.

    Args:
        depth: 18, 34, 50 or 101.
        width: Share of the usual channels that each network has.
        channels: How many of the three channels each network sees, e.g. L and ab.
        out_indices: Stages to return, 0..3 = C2..C5.
        with_cp: Gradient checkpointing, as ``ResNet`` has it.

    Raises:
        UserError: If ``channels`` do not make three, or ``width`` no whole number of channels.

    Source: CMC (1906.05849), section 4.1.
    """

    def __init__(
        self,
        depth: int = 50,
        width: float = 0.5,
        channels: Sequence[int] = (1, 2),
        out_indices: Sequence[int] = (3,),
        with_cp: bool = False,
    ):
        counts = channels if isinstance(channels, list | tuple) else ()
        if not all(map(POSITIVE_WHOLE.fits, counts)) or sum(counts) != 3:
            raise UserError(
                f"model.backbone.channels is {channels!r}: the networks must share the three "
                "channels of an image.",
                "use (1, 2) for L and ab",
            )
        if not POSITIVE.fits(width) or width * 64 % 1:
            raise UserError(
                f"model.backbone.width is {width!r}: 64 channels after the stem, times that, must "
                "be a whole number.",
                "use 0.5 or 0.25, for example",
            )
        super().__init__(
            [_NarrowResNet(depth, count, width, out_indices, with_cp) for count in channels],
            channels,
        )
        self.depth, self.width, self.out_indices = depth, width, tuple(out_indices)

    def joined(self) -> ResNet:
        """One plain ResNet with the same maps: zero where a part would see another's channels.

        Raises:
            UserError: If the parts together are not as wide as a ResNet.
        """
        if self.width * len(self.parts) != 1:
            raise UserError(
                f"{len(self.parts)} networks of width {self.width:g} do not make one ResNet.",
                "only networks whose widths add up to 1 can be exported",
            )
        whole = ResNet(self.depth, self.out_indices)
        states = [part.state_dict() for part in self.parts]
        whole.load_state_dict(
            {name: _side_by_side([state[name] for state in states]) for name in states[0]}
        )
        return whole


def _side_by_side(tensors: list[Tensor]) -> Tensor:
    """Kernels block by block along the diagonal, channels' values one after another."""
    if tensors[0].dim() == 0:  # BatchNorm's counter
        return tensors[0]
    if tensors[0].dim() == 1:
        return torch.cat(tensors)
    rows, columns, *size = zip(*(tensor.shape for tensor in tensors), strict=True)
    result = tensors[0].new_zeros(sum(rows), sum(columns), *(side[0] for side in size))
    row = column = 0
    for tensor in tensors:
        result[row : row + len(tensor), column : column + tensor.shape[1]] = tensor
        row, column = row + len(tensor), column + tensor.shape[1]
    return result


class _NarrowResNet(ResNet):
    def __init__(
        self,
        depth: int,
        in_channels: int,
        width: float,
        out_indices: Sequence[int],
        with_cp: bool,
    ):
        self.width = width  # before the layers are made
        super().__init__(depth, out_indices, with_cp=with_cp)
        stem = round(64 * width)
        self.conv1 = nn.Conv2d(in_channels, stem, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1 = nn.BatchNorm2d(stem)
        self.out_channels = tuple(round(count * width) for count in self.out_channels)

    def _make_layer(self, block, planes: int, *args, **kwargs) -> nn.Sequential:
        if planes == 64:  # the first stage follows the stem
            self.inplanes = round(64 * self.width)
        return super()._make_layer(block, round(planes * self.width), *args, **kwargs)
