"""MoCo v3 (2104.02057): BYOL's networks, with the other keys of the batch as negatives."""

from mmengine.dist import get_rank
from torch import Tensor, nn

from densessl.losses import batch_nce
from densessl.models.distributed import gather
from densessl.models.methods.byol import BYOL
from densessl.precision import l2_normalize
from densessl.registry import MODELS


@MODELS.register_module()
class MoCoV3(BYOL):
    """Momentum contrast without a queue: large batches hold the negatives.

    Accumulation does not enlarge the batch: each micro-batch has its own negatives only.

    Args:
        backbone: Config or module.
        head: Config or module of the projector.
        predictor: Config or module of the student's predictor.
        temperature: 1.0 for a ResNet, 0.2 for a ViT.
        momentum: The teacher's share kept at the first optimizer step.
        **byol: See ``BYOL``.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        predictor: dict | nn.Module,
        temperature: float = 1.0,
        momentum: float = 0.99,
        **byol,
    ):
        super().__init__(backbone, head, predictor, momentum, **byol)
        self.temperature = temperature

    def compare(self, p: Tensor, z: Tensor) -> Tensor:
        """``ctr``: predictions against the teacher's keys of the global batch."""
        keys, offset = gather(l2_normalize(z)), get_rank() * len(z)
        contrast = batch_nce(l2_normalize(p), keys, self.temperature, offset)
        return 2 * self.temperature * contrast
