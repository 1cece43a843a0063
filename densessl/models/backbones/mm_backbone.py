"""Any backbone of mmdet's or mmseg's that gives four maps."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densessl.errors import UserError
from densessl.models.backbones.stages import checked_stages
from densessl.registry import MODELS


@MODELS.register_module()
class MMBackbone(nn.Module):
    """A backbone of another mm project, whose four maps are C2..C5.

    It stays whole under ``model``, so that its keys are the project's own.

    Args:
        model: Its config; ``type`` begins with the project: ``mmdet.SwinTransformer``.
        out_indices: Stages to return, 0..3 = C2..C5; ``model`` gives all four.

    Raises:
        UserError: If there is no such backbone, or it gives other than four maps of an image, or
            it would not learn its norms, or for another stage.
    """

    def __init__(self, model: dict, out_indices: Sequence[int] = (3,)):
        super().__init__()
        self.out_indices = checked_stages(out_indices)
        if MODELS.get(model["type"]) is None:
            raise UserError(
                f"model.backbone.model.type is {model['type']!r}, which is no backbone here.",
                "write the project before the name, such as mmdet.SwinTransformer, and install it "
                'with pip install -e ".[transfer]" --no-build-isolation',
            )
        self.model = MODELS.build(model)
        if getattr(self.model, "norm_eval", False):
            raise UserError(
                f"{model['type']} does not learn the statistics of its BatchNorms, as mm's "
                "detectors want it.",
                "set model.backbone.model.norm_eval to False",
            )
        channels = [image_map.shape[1] for image_map in self._maps_of_zeros()]
        if len(channels) != 4:
            raise UserError(
                f"{model['type']} gives {len(channels)} maps.",
                "set model.backbone.model.out_indices so that it gives four, for C2..C5",
            )
        self.out_channels = tuple(channels[stage] for stage in self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) normalised RGB -> the maps of ``out_indices``, (B, C, h, w) each."""
        maps = self.model(x)
        return tuple(maps[stage] for stage in self.out_indices)

    def init_weights(self) -> None:
        """As the project initialises it; mmengine calls this when a training begins."""
        self.model.init_weights()

    @torch.no_grad()
    def _maps_of_zeros(self) -> tuple[Tensor, ...]:
        self.model.eval()  # statistics and random numbers stay as they are
        maps = self.model(torch.zeros(1, 3, 64, 64))
        self.model.train()
        return maps
