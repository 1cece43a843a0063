"""Any backbone of mmdet's, mmseg's or mmpretrain's that gives four maps."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densessl.errors import UserError
from densessl.models.backbones.stages import checked_stages
from densessl.registry import MODELS

SIDES = (64, 224)  # pixels; the second for those that take no other


@MODELS.register_module()
class MMBackbone(nn.Module):
    """A backbone of another mm project, whose four maps are C2..C5.

    It stays whole under ``model``, so that its keys are the project's own. What makes none of the
    maps asked for is frozen: DistributedDataParallel minds parameters without a gradient.

    Args:
        model: Its config; ``type`` begins with the project: ``mmdet.SwinTransformer``.
        out_indices: Stages to return, 0..3 = C2..C5; ``model`` gives all four.

    Raises:
        UserError: If there is no such backbone, or it gives other than four maps of an image, or
            parts of it would not learn, or for another stage.

    Attributes:
        fixed_size: Height and width of the only images that it takes; None if it takes any.
    """

    def __init__(self, model: dict, out_indices: Sequence[int] = (3,)):
        super().__init__()
        self.out_indices = checked_stages(out_indices)
        kind = model["type"]
        if MODELS.get(kind) is None:
            raise UserError(
                f"model.backbone.model.type is {kind!r}, which is no backbone here.",
                "write the project before the name, as in mmdet.SwinTransformer, and install it "
                'with pip install -e ".[transfer]" --no-build-isolation; one of your own is '
                "imported by custom_imports in a config, and with a checkpoint by --trust",
            )
        self.model = MODELS.build(model)
        if getattr(self.model, "norm_eval", False):
            raise UserError(
                f"{kind} does not learn the statistics of its BatchNorms, as mm's detectors want "
                "it.",
                "set model.backbone.model.norm_eval to False",
            )
        if getattr(self.model, "frozen_stages", -1) >= 0:
            raise UserError(
                f"{kind} would keep its first stages as they begin: frozen_stages is "
                f"{self.model.frozen_stages}.",
                "set model.backbone.model.frozen_stages to -1",
            )
        self.fixed_size, maps = self._try_sizes(kind)
        if len(maps) != 4:
            raise UserError(
                f"{kind} gives {len(maps)} maps.",
                "set model.backbone.model.out_indices so that it gives four, for C2..C5",
            )
        self.out_channels = tuple(maps[stage].shape[1] for stage in self.out_indices)
        self._freeze_the_unused(maps)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) normalised RGB -> the maps of ``out_indices``, (B, C, h, w) each."""
        if self.fixed_size and tuple(x.shape[2:]) != self.fixed_size:
            raise UserError(
                f"The model takes images of {self.fixed_size[1]} x {self.fixed_size[0]} pixels, "
                f"not of {x.shape[3]} x {x.shape[2]}.",
                "set train_dataloader.dataset.transform.size to that",
            )
        maps = self.model(x)
        return tuple(maps[stage] for stage in self.out_indices)

    def init_weights(self) -> None:
        """As the project initialises it; mmengine calls this when a training begins."""
        self.model.init_weights()

    @torch.enable_grad()
    def _try_sizes(self, kind: str) -> tuple[tuple[int, int] | None, Sequence[Tensor]]:
        """The one size that it takes, if not any, and its maps of an image of zeros."""
        self.model.eval()  # statistics and random numbers stay as they are
        try:
            for side in SIDES:
                try:
                    maps = self.model(torch.zeros(1, 3, side, side))
                    return (None if side == SIDES[0] else (side, side)), maps
                except (AssertionError, RuntimeError, ValueError) as error:
                    problem = error
        finally:
            self.model.train()
        raise UserError(
            f"{kind} takes images neither of {SIDES[0]} nor of {SIDES[1]} pixels: "
            f"{str(problem) or type(problem).__name__}.",
            "set the size of its images, where it has one, to 224",
        ) from problem

    def _freeze_the_unused(self, maps: Sequence[Tensor]) -> None:
        sum(maps[stage].sum() for stage in self.out_indices).backward()
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None
