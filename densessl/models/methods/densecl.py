"""DenseCL (2011.09157): MoCo v2 plus the same contrast between matched cells of the two views."""

import torch
from torch import Tensor, nn

from densessl.correspondence import cell_centers, match_agreement, match_by_feature
from densessl.correspondence.feature import gather_cells, pool_to_grid
from densessl.losses import info_nce
from densessl.models.distributed import BatchShuffle, gather
from densessl.models.memory import FeatureQueue
from densessl.models.methods.moco import MoCo
from densessl.models.teacher import Teacher
from densessl.precision import at_least_float32, l2_normalize
from densessl.registry import MODELS
from densessl.structures import ViewBatch, ViewRecord


@MODELS.register_module()
class DenseCL(MoCo):
    """Dense contrastive learning.

    Args:
        backbone: Config or module.
        head: Config or module of the global head.
        dense_head: Config or module of the dense head.
        grid: Side S of the dense grid; None keeps the map's own size (7 at 224 px).
        loss_lambda: Weight of the dense loss; the global one gets the rest.
        warmup_steps: Optimizer steps during which only the global loss counts; the published
            recipes have none.
        **moco: See ``MoCo``; both queues have the same size.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        dense_head: dict | nn.Module,
        grid: int | None = None,
        loss_lambda: float = 0.5,
        warmup_steps: int = 0,
        **moco,
    ):
        super().__init__(backbone, head, **moco)
        self.dense_head = self.build_head(dense_head)
        self.teacher = Teacher(
            self.teacher.momentum,
            backbone=self.backbone,
            head=self.head,
            dense_head=self.dense_head,
        )
        self.dense_queue = FeatureQueue(len(self.queue.features), self.dense_head.out_channels)
        self.grid = grid
        self.loss_lambda = loss_lambda
        self.warmup_steps = warmup_steps
        self._new_dense_keys: list[Tensor] = []

    def loss(self, batch: ViewBatch) -> dict[str, Tensor]:
        query_view, key_view = self.two_views(batch)
        query_map = self.backbone(query_view)[-1]
        query = l2_normalize(self.head(query_map))
        query_cells = pool_to_grid(query_map, self.grid)
        dense_query = l2_normalize(self.dense_head(query_cells))  # (B, C, S, S)

        key, key_cells, dense_key, pooled_key = self.encode_keys(key_view)
        self._new_keys.append(key)
        self._new_dense_keys.append(pooled_key)

        match = match_by_feature(query_cells, key_cells)  # (B, S*S), on backbone features
        dense_positive = gather_cells(dense_key, match)  # (B, C, S*S)

        loss_global = info_nce(query, key, self.queue.features, self.temperature)
        loss_dense = info_nce(
            _rows(dense_query), _rows(dense_positive), self.dense_queue.features, self.temperature
        )
        weight = self.loss_lambda if self.step >= self.warmup_steps else 0.0
        return {
            "loss": (1 - weight) * loss_global + weight * loss_dense,
            "global": loss_global.detach(),
            "dense": loss_dense.detach(),
            "lambda": loss_global.new_tensor(weight),
            "match_agreement": _agreement(match, batch.records, query_cells, key_cells),
            **self.figures(query, key),
        }

    @torch.no_grad()
    def encode_keys(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The teacher's side of this rank's images, of which ``augment`` shuffled the views.

        Returns:
            (B, C) unit keys, (B, F, S, S) backbone cells to match with, (B, C, S, S) unit dense
            keys, (B, C) unit dense keys pooled before normalisation, for the queue.
        """
        shuffle = BatchShuffle(len(images), self.step)
        features = self.teacher.backbone(images)[-1]
        cells = pool_to_grid(features, self.grid)
        dense = at_least_float32(self.teacher.dense_head(cells))
        return shuffle.restore(
            l2_normalize(self.teacher.head(features)),
            cells,
            l2_normalize(dense),
            l2_normalize(dense.mean(dim=(2, 3))),
        )

    def after_optimizer_step(self) -> None:
        super().after_optimizer_step()
        self.dense_queue.enqueue(gather(torch.cat(self._new_dense_keys)))
        self._new_dense_keys.clear()


def _rows(cells: Tensor) -> Tensor:
    """(B, C, ...) -> (B * cells, C), in the order of images, then cells."""
    return cells.flatten(2).transpose(1, 2).flatten(0, 1)


def _agreement(
    match: Tensor, records: tuple[ViewRecord, ...], query_cells: Tensor, key_cells: Tensor
) -> Tensor:
    query, key = records
    return match_agreement(
        match,
        cell_centers(query.box, query.flip, query_cells.shape[-1]),
        cell_centers(key.box, key.flip, key_cells.shape[-1]),
    )
