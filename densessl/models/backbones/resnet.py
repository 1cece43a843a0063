"""torchvision's ResNets as feature extractors; mmdet and mmseg use the same keys."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torchvision.models import resnet

from densessl.errors import UserError
from densessl.models.backbones.norm_act import norm_act
from densessl.models.backbones.recompute import recomputed
from densessl.models.backbones.stages import checked_stages
from densessl.registry import MODELS


def shortcut(block: nn.Module, x: Tensor) -> Tensor:
    """What a block adds to its residual branch's output."""
    if block.downsample is None:
        return x
    conv, norm = block.downsample
    return norm_act(norm, conv(x), relu=False)


class BasicBlock(resnet.BasicBlock):
    """torchvision's, with its norms, sum and ReLUs by ``norm_act``."""

    def forward(self, x: Tensor) -> Tensor:
        y = norm_act(self.bn1, self.conv1(x))
        return norm_act(self.bn2, self.conv2(y), shortcut(self, x))


class Bottleneck(resnet.Bottleneck):
    """torchvision's, with its norms, sum and ReLUs by ``norm_act``."""

    def forward(self, x: Tensor) -> Tensor:
        y = norm_act(self.bn1, self.conv1(x))
        y = norm_act(self.bn2, self.conv2(y))
        return norm_act(self.bn3, self.conv3(y), shortcut(self, x))


LAYOUTS = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}
# "gn" looks at each image alone, where BatchNorm would tell images or patches of each other.
NORMS = {"bn": nn.BatchNorm2d, "gn": partial(nn.GroupNorm, 32)}


@MODELS.register_module()
class ResNet(resnet.ResNet):
    """A ResNet without classifier that returns feature maps.

    Args:
        depth: 18, 34, 50 or 101.
        out_indices: Stages to return, 0..3 = C2..C5 as in mmdet.
        zero_init_residual: Starts each block's last BatchNorm at zero.
        replace_stride_with_dilation: As torchvision's; (False, True, True) is mmseg's d8.
        norm: "bn", or "gn" for GroupNorm of 32 groups under the same names.
        with_cp: Gradient checkpointing: each block's activations are computed again in the
            backward pass, a third more work for a fraction of the memory.

    Raises:
        UserError: For another depth, stage or norm.
    """

    def __init__(
        self,
        depth: int = 50,
        out_indices: Sequence[int] = (3,),
        zero_init_residual: bool = False,
        replace_stride_with_dilation: Sequence[bool] | None = None,
        norm: str = "bn",
        with_cp: bool = False,
    ):
        if depth not in LAYOUTS:
            raise UserError(
                f"There is no ResNet of depth {depth}.",
                f"use one of: {', '.join(map(str, LAYOUTS))}",
            )
        stages = checked_stages(out_indices)
        if norm not in NORMS:
            raise UserError(
                f"model.backbone.norm is '{norm}'.",
                f"use one of: {', '.join(NORMS)}",
            )
        block, layers = LAYOUTS[depth]
        super().__init__(
            block,
            list(layers),
            zero_init_residual=zero_init_residual,
            replace_stride_with_dilation=replace_stride_with_dilation,
            norm_layer=NORMS[norm],
        )
        del self.fc, self.avgpool
        for part in self.modules():  # norm_act calls none
            if isinstance(part, resnet.ResNet | resnet.BasicBlock | resnet.Bottleneck):
                del part.relu
        self.with_cp = with_cp
        self.out_indices = stages
        self.out_channels = tuple(64 * 2**i * block.expansion for i in self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) normalised RGB -> the maps of ``out_indices``, C5 at stride 32."""
        x = self.maxpool(norm_act(self.bn1, self.conv1(x)))
        maps = []
        for stage in range(max(self.out_indices) + 1):
            for block in getattr(self, f"layer{stage + 1}"):
                x = recomputed(block, x) if self.with_cp else block(x)
            if stage in self.out_indices:
                maps.append(x)
        return tuple(maps)
