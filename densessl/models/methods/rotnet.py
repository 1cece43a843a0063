"""RotNet (1803.07728): by which quarter turn was the image rotated?"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densessl.models.methods.base import Method
from densessl.precision import at_least_float32
from densessl.registry import MODELS
from densessl.structures import ViewBatch


@MODELS.register_module()
class RotNet(Method):
    """Rotation prediction. A step sees all four rotations of each image of the batch.

    Args:
        backbone: Config or module.
        head: Config or module with four outputs.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(backbone, data_preprocessor)
        self.head = self.build_head(head)

    def loss(self, batch: ViewBatch) -> dict[str, Tensor]:
        (view,) = self.views_of(batch, 1)
        turned = torch.cat([view.rot90(turns, (2, 3)) for turns in range(4)])
        logits = at_least_float32(self.head(self.backbone(turned)[-1]))
        turns = torch.arange(4, device=view.device).repeat_interleave(len(view))
        accuracy = (logits.argmax(1) == turns).to(logits).mean()
        return {"loss": F.cross_entropy(logits, turns), "accuracy": accuracy}
