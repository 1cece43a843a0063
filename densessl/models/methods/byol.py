"""BYOL (2006.07733): a predictor turns one view's projection into the teacher's of the other."""

import torch
from torch import Tensor, nn

from densessl.losses import negative_cosine
from densessl.models.health import health
from densessl.models.methods.base import Method
from densessl.models.teacher import Teacher
from densessl.registry import MODELS
from densessl.structures import ViewBatch


@MODELS.register_module()
class BYOL(Method):
    """Bootstrap your own latent.

    Args:
        backbone: Config or module.
        head: Config or module of the projector; the teacher has one too.
        predictor: Config or module of the predictor, which only the student has.
        momentum: The teacher's share kept at the first optimizer step.
        end_momentum: The same at the end of training.
    """

    sync_bn = True
    smallest_batch = 2

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        predictor: dict | nn.Module,
        momentum: float = 0.996,
        end_momentum: float = 1.0,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(backbone, data_preprocessor)
        self.head = self.build_head(head)
        self.predictor = self.build_head(predictor, self.head.out_channels)
        self.teacher = Teacher(momentum, end_momentum, backbone=self.backbone, head=self.head)

    def loss(self, batch: ViewBatch) -> dict[str, Tensor]:
        one, two = self.two_views(batch)
        p1, p2 = (self.predictor(self.head(self.backbone(view)[-1])) for view in (one, two))
        with torch.no_grad():
            z1, z2 = (self.teacher.head(self.teacher.backbone(view)[-1]) for view in (one, two))
        return {
            "loss": self.compare(p1, z2) + self.compare(p2, z1),
            **health(p1, z2),
            "teacher_distance": self.teacher.distance(self),
        }

    def compare(self, p: Tensor, z: Tensor) -> Tensor:
        """The loss of (B, C) predictions against the (B, C) projections of the other views."""
        return 2 + 2 * negative_cosine(p, z)

    def after_optimizer_step(self) -> None:
        self.teacher.update(self, self.progress)
