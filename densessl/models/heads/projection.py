"""Projection heads: from a feature map to an embedding of the image, or of each cell."""

from collections.abc import Sequence

from torch import Tensor, nn

from densessl.registry import MODELS


def _layers(make, channels: Sequence[int]) -> list[nn.Module]:
    modules = []
    for inner, outer in zip(channels, channels[1:], strict=False):
        modules += [make(inner, outer), nn.ReLU(inplace=True)]
    return modules[:-1]


@MODELS.register_module()
class GlobalHead(nn.Module):
    """Global average pool, then fully connected layers with ReLU between them.

    Layers start Kaiming-normal (fan in), biases at zero.

    Args:
        in_channels: Channels of the backbone's last map; methods fill it in.
        hidden_channels: Widths of the hidden layers; () is MoCo v1's single layer.
        out_channels: Width of the embedding.
    """

    def __init__(
        self, in_channels: int, hidden_channels: Sequence[int] = (2048,), out_channels: int = 128
    ):
        super().__init__()
        self.out_channels = out_channels
        self.mlp = nn.Sequential(*_layers(nn.Linear, (in_channels, *hidden_channels, out_channels)))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels), not normalised."""
        return self.mlp(features.mean(dim=(2, 3)))


@MODELS.register_module()
class DenseHead(nn.Module):
    """1x1 convolutions with ReLU between them: an embedding of each cell.

    Has as many parameters as the ``GlobalHead`` of the same widths. Layers keep PyTorch's default
    initialisation.

    Args:
        in_channels: Channels of the backbone's last map; methods fill it in.
        hidden_channels: Widths of the hidden layers.
        out_channels: Width of the embedding.

    Source: DenseCL (2011.09157), section 3.2.
    """

    def __init__(
        self, in_channels: int, hidden_channels: Sequence[int] = (2048,), out_channels: int = 128
    ):
        super().__init__()
        self.out_channels = out_channels
        self.mlp = nn.Sequential(
            *_layers(
                lambda inner, outer: nn.Conv2d(inner, outer, 1),
                (in_channels, *hidden_channels, out_channels),
            )
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, H, W), not normalised."""
        return self.mlp(features)
