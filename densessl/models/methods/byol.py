"""BYOL (2006.07733): a predictor turns one view's projection into the teacher's of the other."""

import torch
from torch import Tensor, nn

from densessl.losses import negative_cosine
from densessl.models.dense_branch import DenseBranch, attach_dense
from densessl.models.health import health
from densessl.models.methods.base import Method
from densessl.models.teacher import Teacher
from densessl.registry import MODELS
from densessl.structures import ViewBatch, ViewRecord


@MODELS.register_module()
class BYOL(Method):
    """Bootstrap your own latent.

    Args:
        backbone: Config or module.
        head: Config or module of the projector; the teacher has one too.
        predictor: Config or module of the predictor, which only the student has.
        momentum: The teacher's share kept at the first optimizer step.
        end_momentum: The same at the end of training.
        dense: Config of a ``DenseBranch`` with a predictor; None leaves it out.
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
        dense: dict | DenseBranch | None = None,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(backbone, data_preprocessor)
        self.head = self.build_head(head)
        self.predictor = self.build_head(predictor, self.head.out_channels)
        followed = attach_dense(self, dense)
        self.teacher = Teacher(
            momentum, end_momentum, backbone=self.backbone, head=self.head, **followed
        )

    def loss(self, batch: ViewBatch) -> dict[str, Tensor]:
        views = self.views_of(batch, 2)
        with torch.no_grad():  # first: what it takes is free again for the student's activations
            key_maps, (k1, k2) = zip(*(self.encode(self.teacher, v) for v in views), strict=True)
        maps, (z1, z2) = zip(*(self.encode(self, view) for view in views), strict=True)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        losses = {"loss": self.compare(p1, k2) + self.compare(p2, k1)}
        if self.dense is not None:
            losses = self.with_cells(losses["loss"], maps, key_maps, batch.records)
        # Of projections: a new predictor's outputs are nearly equal for some hundred steps.
        return {**losses, **health(z1, k2), "teacher_distance": self.teacher.distance(self)}

    def encode(self, network: nn.Module, view: Tensor) -> tuple[Tensor, Tensor]:
        """What ``network``, the student or its teacher, makes of a view.

        Args:
            network: Has ``backbone`` and ``head``.
            view: (B, 3, H, W).

        Returns:
            (B, F, h, w) last map of the backbone, (B, C) projections.
        """
        features = network.backbone(view)[-1]
        return features, network.head(features)

    def with_cells(
        self,
        loss_global: Tensor,
        maps: tuple[Tensor, Tensor],
        key_maps: tuple[Tensor, Tensor],
        records: tuple[ViewRecord, ViewRecord],
    ) -> dict[str, Tensor]:
        """The loss with the dense branch's, from the student's maps and the teacher's."""
        cells = list(map(self.dense.cells, maps, records))
        key_cells = list(map(self.dense.cells, key_maps, records))
        predictions = [self.dense_predictor(self.dense_head(x.features)) for x in cells]
        with torch.no_grad():
            keys = [self.teacher.dense_head(x.features) for x in key_cells]
        loss_dense, figures = self.dense.both_ways(
            self.compare, cells, key_cells, predictions, keys
        )
        return {**self.dense.weigh(loss_global, loss_dense, self.step), **figures}

    def compare(self, p: Tensor, z: Tensor, group: Tensor | None = None) -> Tensor:
        """The loss of (N, C) predictions against the teacher's (N, C) projections of the other
        views: of images, or of cells, of which (N,) ``group`` says which are one and the same."""
        return 2 + 2 * negative_cosine(p, z)

    def after_optimizer_step(self) -> None:
        self.teacher.update(self, self.progress)
