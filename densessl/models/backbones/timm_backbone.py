"""Any timm model that gives feature maps."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import timm
import torch
from timm.layers import to_2tuple
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from densessl.errors import UserError
from densessl.models.backbones.stages import checked_stages
from densessl.registry import MODELS
from densessl.suggest import did_you_mean


@MODELS.register_module()
class TimmBackbone(nn.Module):
    """A timm model whose last four stages (a ViT's last four blocks) are C2..C5.

    The model stays whole under ``model``, so that its keys are timm's own.

    Args:
        name: timm's name of the architecture.
        out_indices: Stages to return, 0..3 = C2..C5 as in mmdet.
        with_cp: Gradient checkpointing, as timm does it; for models without BatchNorm.
        **options: Passed to ``timm.create_model``, e.g. ``img_size``.

    Raises:
        UserError: If timm has no such model, or it gives no four maps, or weights are named,
            or ``img_size`` does not fit its patch, or for another stage, or if it cannot be
            checkpointed; in the forward pass, if the views do not fit the model.
    """

    def __init__(
        self, name: str, out_indices: Sequence[int] = (3,), with_cp: bool = False, **options
    ):
        super().__init__()
        if not timm.is_model(name):
            raise UserError(
                f"timm has no model '{name}'{did_you_mean(name, timm.list_models())}.",
                "see timm.list_models()",
            )
        if weights := options.keys() & {"pretrained", "checkpoint_path"}:
            raise UserError(
                f"model.backbone.{min(weights)} is not for TimmBackbone.",
                "download the weights, and begin with them: --cfg-options load_from=FILE",
            )
        self.name = name
        self.model = timm.create_model(name, pretrained=False, num_classes=0, **options)
        if not hasattr(self.model, "forward_intermediates"):
            raise UserError(
                f"timm's '{name}' gives no feature maps.",
                "choose one with forward_intermediates, e.g. resnet50, convnext_tiny or "
                "vit_small_patch16_224",
            )
        self.with_cp = with_cp
        if with_cp:
            self._checkpoint()
        patches = getattr(self.model, "patch_embed", None)
        sides = zip(
            to_2tuple(getattr(patches, "img_size", None) or 0),
            to_2tuple(getattr(patches, "patch_size", None) or 1),
            strict=True,
        )
        if any(image % patch for image, patch in sides):
            raise UserError(
                f"Images of {patches.img_size} pixels do not divide into patches of "
                f"{patches.patch_size}.",
                "set model.backbone.img_size to a multiple of the patch, and "
                "train_dataloader.dataset.transform.size to the same",
            )
        # Maps do without it, and DistributedDataParallel minds parameters without a gradient.
        self.train_head(False)
        stages = self.model.feature_info
        stages = [stages[i] for i in range(len(stages))]
        first = len(stages) - 4
        if first < 0 and not hasattr(self.model, "blocks"):  # a small ViT may do with its last
            raise UserError(
                f"timm's '{name}' gives {len(stages)} maps.",
                "choose one that gives four, for C2..C5",
            )
        self.out_indices = checked_stages(out_indices)
        self.stages = [first + i for i in self.out_indices]
        self.out_channels = tuple(stages[stage]["num_chs"] for stage in self.stages)

    def forward(self, x: Tensor, embed: bool = False) -> tuple[Tensor, ...]:
        """(B, 3, H, W) normalised RGB -> the maps of ``out_indices``, (B, C, h, w) each.

        With ``embed`` it gives what the method of that name does, which a compiled model compiles
        only as a part of its forward pass.
        """
        with self._size_explained(x):
            if embed:
                last, maps = self.model.forward_intermediates(
                    x, indices=self.stages[-1:], norm=True, output_fmt="NCHW"
                )
                return maps[-1], self.model.forward_head(last)
            return tuple(
                self.model.forward_intermediates(
                    x, indices=self.stages, norm=True, output_fmt="NCHW", intermediates_only=True
                )
            )

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both the last map and what timm represents an image by, in one pass.

        Args:
            x: (B, 3, H, W) normalised RGB.

        Returns:
            (B, C, h, w), and (B, C): a ViT's class token, other models' pooled map.
        """
        return self(x, embed=True)

    @property
    def embed_channels(self) -> int:
        """C of what ``embed`` represents an image by."""
        return self.model.head_hidden_size

    def train_head(self, on: bool = True) -> None:
        """Whether timm's ``head`` is trained, which some models embed with: a ConvNeXt's last norm
        lies there. Others have layers of other names there, which always are."""
        if isinstance(getattr(self.model, "head", None), nn.Module):
            self.model.head.requires_grad_(on)

    def _checkpoint(self) -> None:
        # timm would update the statistics a second time when it computes activations again.
        if any(isinstance(layer, _BatchNorm) for layer in self.model.modules()):
            raise UserError(
                f"model.backbone.with_cp is for timm's models without BatchNorm, and {self.name} "
                "has some.",
                "leave it out, or for a ResNet take type='ResNet', which has it",
            )
        try:
            self.model.set_grad_checkpointing()
        except (AssertionError, AttributeError) as error:
            raise UserError(
                f"timm's '{self.name}' has no gradient checkpointing.",
                "leave model.backbone.with_cp out",
            ) from error

    @contextmanager
    def _size_explained(self, x: Tensor) -> Iterator[None]:
        """Turns what timm says about the size of ``x`` into advice; models of one size may only
        fail to multiply."""
        try:
            yield
        except (AssertionError, RuntimeError) as error:
            fixed = self.model.pretrained_cfg.get("fixed_input_size")
            if isinstance(error, torch.OutOfMemoryError) or not (
                fixed or isinstance(error, AssertionError)
            ):
                raise
            raise UserError(
                f"The model does not take views of {x.shape[3]} x {x.shape[2]} pixels: {error}",
                "set train_dataloader.dataset.transform.size and model.backbone.img_size to the "
                "same multiple of the model's patch",
            ) from error
