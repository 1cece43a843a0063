"""MoCo v3 (2104.02057): BYOL's networks, with the other keys of the batch as negatives."""

from mmengine.dist import get_rank
from torch import Tensor, nn

from densessl.losses import batch_nce
from densessl.models.backbones import TimmBackbone, build_backbone, start_vit
from densessl.models.distributed import gather
from densessl.models.methods.byol import BYOL
from densessl.precision import l2_normalize
from densessl.registry import MODELS


@MODELS.register_module()
class MoCoV3(BYOL):
    """Momentum contrast without a queue: large batches hold the negatives.

    Accumulation does not enlarge the batch: each micro-batch has its own negatives only. A timm
    backbone is represented by its class token, or what else timm pools for it.

    Args:
        backbone: Config or module.
        head: Config or module of the projector.
        predictor: Config or module of the student's predictor.
        temperature: 1.0 for a ResNet, 0.2 for a ViT.
        momentum: The teacher's share kept at the first optimizer step.
        frozen_patches: For vision transformers: starts and freezes them as the paper does, see
            ``start_vit``.
        **byol: See ``BYOL``.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        predictor: dict | nn.Module,
        temperature: float = 1.0,
        momentum: float = 0.99,
        frozen_patches: bool = False,
        **byol,
    ):
        backbone = build_backbone(backbone) if isinstance(backbone, dict) else backbone
        if isinstance(backbone, TimmBackbone):
            backbone.train_head()
            if isinstance(head, dict):
                head = {"in_channels": backbone.embed_channels, **head}
        if frozen_patches:
            start_vit(getattr(backbone, "model", backbone))
        super().__init__(backbone, head, predictor, momentum, **byol)
        self.temperature = temperature

    def encode(self, network: nn.Module, view: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(network.backbone, TimmBackbone):
            features, pooled = network.backbone.embed(view)
            return features, network.head(pooled)
        return super().encode(network, view)

    def compare(self, p: Tensor, z: Tensor, group: Tensor | None = None) -> Tensor:
        """``ctr``: (N, C) predictions against the teacher's keys of the global batch."""
        keys, offset = gather(l2_normalize(z)), get_rank() * len(z)
        group = None if group is None else gather(group)
        contrast = batch_nce(l2_normalize(p), keys, self.temperature, offset, group)
        return 2 * self.temperature * contrast
