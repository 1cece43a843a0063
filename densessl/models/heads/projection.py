"""Projection heads: from a feature map to an embedding of the image, or of each cell."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from densessl.errors import UserError
from densessl.registry import MODELS


def _no_shift(make: Callable[[int], nn.Module], channels: int) -> nn.Module:
    norm = make(channels)
    norm.bias.requires_grad_(False)
    return norm


# From a BatchNorm class to what makes the last one of a head.
LAST_NORMS = {
    None: lambda make: None,
    "bn": lambda make: make,
    "bn_no_shift": lambda make: partial(_no_shift, make),
    "bn_no_affine": lambda make: partial(make, affine=False),
}


def _mlp(
    layer: Callable[..., nn.Module],
    batch_norm: Callable[..., nn.Module],
    channels: Sequence[int],
    norm: bool,
    last_norm: str | None,
    bias: bool,
) -> nn.Sequential:
    """Layers with ReLU, or BatchNorm and ReLU, between them, and perhaps a BatchNorm last."""
    if last_norm not in LAST_NORMS:
        raise UserError(
            f"A head has no last_norm={last_norm!r}.",
            f"use one of: {', '.join(map(str, LAST_NORMS))}",
        )
    hidden = batch_norm if norm else None
    norms = [hidden] * (len(channels) - 2) + [LAST_NORMS[last_norm](batch_norm)]
    modules = []
    for inner, outer, after in zip(channels, channels[1:], norms, strict=False):
        modules.append(layer(inner, outer, bias=bias and after is None))
        modules += [after(outer)] if after else []
        modules.append(nn.ReLU(inplace=True))
    return nn.Sequential(*modules[:-1])


class ProjectionHead(nn.Module):
    """An MLP of the layers and norms that a subclass names.

    Args:
        in_channels: Channels of the backbone's last map; methods fill it in.
        hidden_channels: Widths of the hidden layers; () is MoCo v1's single layer.
        out_channels: Width of the embedding.
        norm: Puts a BatchNorm before each ReLU.
        last_norm: What follows the last layer: None, "bn", "bn_no_shift" (scale only) or
            "bn_no_affine".
        bias: Whether layers have one. Those before a BatchNorm never do: it would take it away.

    Raises:
        UserError: For another ``last_norm``.
    """

    layer: Callable[..., nn.Module]
    batch_norm: Callable[..., nn.Module]

    def __init__(
        self,
        in_channels: int,
        hidden_channels: Sequence[int] = (2048,),
        out_channels: int = 128,
        norm: bool = False,
        last_norm: str | None = None,
        bias: bool = True,
    ):
        super().__init__()
        self.out_channels = out_channels
        channels = (in_channels, *hidden_channels, out_channels)
        self.mlp = _mlp(self.layer, self.batch_norm, channels, norm, last_norm, bias)
        self.start(norm)

    def start(self, norm: bool) -> None:
        """Initialises the layers; left as PyTorch does it."""


@MODELS.register_module()
class GlobalHead(ProjectionHead):
    """Global average pool, then fully connected layers with ReLU between them.

    Takes vectors too, so a predictor is one of these on a projection. Layers start Kaiming-normal
    (fan in) with biases at zero; with ``norm`` they start as PyTorch's do.
    Arguments are those of ``ProjectionHead``.
    """

    layer = nn.Linear
    batch_norm = nn.BatchNorm1d

    def start(self, norm: bool) -> None:
        for layer in () if norm else self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) or (B, C) -> (B, out_channels), not normalised."""
        return self.mlp(features.mean(dim=(2, 3)) if features.ndim == 4 else features)


@MODELS.register_module()
class DenseHead(ProjectionHead):
    """1x1 convolutions with ReLU between them: an embedding of each cell.

    Has as many parameters as the ``GlobalHead`` of the same options. Arguments are those of
    ``ProjectionHead``.

    Source: DenseCL (2011.09157), section 3.2.
    """

    batch_norm = nn.BatchNorm2d

    @staticmethod
    def layer(inner: int, outer: int, bias: bool) -> nn.Module:
        return nn.Conv2d(inner, outer, 1, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, H, W), not normalised."""
        return self.mlp(features)
