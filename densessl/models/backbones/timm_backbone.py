"""Any timm model that gives feature maps."""

from collections.abc import Sequence

import timm
from torch import Tensor, nn

from densessl.errors import UserError
from densessl.registry import MODELS
from densessl.suggest import did_you_mean


@MODELS.register_module()
class TimmBackbone(nn.Module):
    """A timm model whose last four stages (a ViT's last four blocks) are C2..C5.

    The model stays whole under ``model``, so that its keys are timm's own.

    Args:
        name: timm's name of the architecture.
        out_indices: Stages to return, 0..3 = C2..C5 as in mmdet.
        **options: Passed to ``timm.create_model``, e.g. ``img_size``.

    Raises:
        UserError: If timm has no such model or it gives no maps.
    """

    def __init__(self, name: str, out_indices: Sequence[int] = (3,), **options):
        super().__init__()
        if not timm.is_model(name):
            raise UserError(
                f"timm has no model '{name}'{did_you_mean(name, timm.list_models())}.",
                "see timm.list_models()",
            )
        self.model = timm.create_model(name, pretrained=False, num_classes=0, **options)
        if not hasattr(self.model, "forward_intermediates"):
            raise UserError(
                f"timm's '{name}' gives no feature maps.",
                "choose one with forward_intermediates, e.g. resnet50, convnext_tiny or "
                "vit_small_patch16_224",
            )
        # What only a classifier would use gets no gradient, which DistributedDataParallel minds.
        if isinstance(getattr(self.model, "head", None), nn.Module):
            self.model.head.requires_grad_(False)
        stages = self.model.feature_info
        stages = [stages[i] for i in range(len(stages))]
        first = len(stages) - 4
        self.out_indices = tuple(out_indices)
        self.stages = [first + i for i in self.out_indices]
        self.out_channels = tuple(stages[stage]["num_chs"] for stage in self.stages)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) normalised RGB -> the maps of ``out_indices``, (B, C, h, w) each."""
        return tuple(
            self.model.forward_intermediates(
                x, indices=self.stages, norm=True, output_fmt="NCHW", intermediates_only=True
            )
        )
