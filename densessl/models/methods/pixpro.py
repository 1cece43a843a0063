"""PixPro (2011.10043): a cell, smoothed by the cells like it, predicts the cells in its place."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densessl.correspondence import cell_centers, cell_diagonals, match_by_distance
from densessl.errors import UserError
from densessl.losses import pixel_consistency
from densessl.models.heads import PixelPropagation
from densessl.models.health import health
from densessl.models.methods.base import Method
from densessl.models.teacher import Teacher
from densessl.precision import at_least_float32, l2_normalize
from densessl.registry import MODELS
from densessl.structures import ViewBatch, ViewRecord


@MODELS.register_module()
class PixPro(Method):
    """Pixel-to-propagation consistency.

    Args:
        backbone: Config or module.
        head: Config or module of the 1x1 projector.
        instance_head: The instance branch's own 1x1 projector; None leaves the branch out.
        instance_predictor: The instance branch's predictor on the map.
        instance_weight: Weight of the instance branch.
        momentum: The teacher's share kept at the first optimizer step; rises to 1 at the last.
        gamma: Sharpness of the propagation's similarity.
        threshold: Cells are a pair when closer than this share of the larger cell's diagonal.
    """

    sync_bn = True

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        instance_head: dict | nn.Module | None = None,
        instance_predictor: dict | nn.Module | None = None,
        instance_weight: float = 1.0,
        momentum: float = 0.99,
        gamma: float = 2.0,
        threshold: float = 0.7,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(backbone, data_preprocessor)
        if (instance_head is None) != (instance_predictor is None):
            raise UserError(
                "PixPro's instance branch needs both model.instance_head and "
                "model.instance_predictor.",
                "give both, or neither",
            )
        self.head = self.build_head(head)
        self.propagation = PixelPropagation(self.head.out_channels, gamma)
        followed = dict(backbone=self.backbone, head=self.head)
        self.has_instance = instance_head is not None
        if self.has_instance:
            self.instance_head = self.build_head(instance_head)
            self.instance_predictor = self.build_head(
                instance_predictor, self.instance_head.out_channels
            )
            followed["instance_head"] = self.instance_head
        self.teacher = Teacher(momentum, end_momentum=1.0, **followed)
        self.threshold = threshold
        self.instance_weight = instance_weight

    def loss(self, batch: ViewBatch) -> dict[str, Tensor]:
        views = self.views_of(batch, 2)
        with torch.no_grad():  # first: what it takes is free again for the student's activations
            teacher_maps = [self.teacher.backbone(view)[-1] for view in views]
            x1, x2 = (self.teacher.head(m).flatten(2) for m in teacher_maps)
        maps = [self.backbone(view)[-1] for view in views]
        cells = [self.head(m) for m in maps]
        y1, y2 = (self.propagation(x).flatten(2) for x in cells)

        pairs = self.pairs(batch.records, [m.shape[-1] for m in maps])  # (B, Q, K)
        dense = 2 * pixel_consistency(y1, x2, pairs)
        dense = dense + 2 * pixel_consistency(y2, x1, pairs.transpose(1, 2))
        figures = {
            "loss": dense,
            "pairs_per_image": pairs.sum(dim=(1, 2)).to(dense).mean(),
            "overlap": pairs.any(2).any(1).to(dense).mean(),
            "teacher_distance": self.teacher.distance(self),
            **health(*(_pooled(x) for x in cells)),
        }
        if self.has_instance:
            instance = self.instance_loss(maps, teacher_maps)
            figures["loss"] = dense + self.instance_weight * instance
            figures.update(dense=dense.detach(), instance=instance.detach())
        return figures

    def pairs(self, records: Sequence[ViewRecord], grids: Sequence[int]) -> Tensor:
        """(B, Q, K) bool: cells of the two views that show the same place."""
        views = list(zip(records, grids, strict=True))
        centers = [cell_centers(record.box, record.flip, grid) for record, grid in views]
        diagonals = [cell_diagonals(record.box, grid) for record, grid in views]
        return match_by_distance(*centers, *diagonals, self.threshold)

    def instance_loss(self, maps: list[Tensor], teacher_maps: list[Tensor]) -> Tensor:
        """The whole image's prediction against the other view's; pooled last."""
        p1, p2 = (_pooled(self.instance_predictor(self.instance_head(m))) for m in maps)
        with torch.no_grad():
            z1, z2 = (_pooled(self.teacher.instance_head(m)) for m in teacher_maps)
        return -2 * ((p1 * z2).sum(1).mean() + (p2 * z1).sum(1).mean())

    def after_optimizer_step(self) -> None:
        self.teacher.update(self, self.progress)


def _pooled(cells: Tensor) -> Tensor:
    return l2_normalize(at_least_float32(cells).mean(dim=(2, 3)))
