"""MoCo v1 (1911.05722) and v2 (2003.04297): a query against its key and a queue of old keys."""

import math

import torch
from mmengine.dist import get_world_size
from torch import Tensor, nn

from densessl.correspondence.feature import gather_cells, pool_to_grid
from densessl.errors import UserError
from densessl.losses import info_nce
from densessl.models.cell_match import Cells
from densessl.models.dense_branch import DenseBranch, attach_dense
from densessl.models.distributed import BatchShuffle
from densessl.models.draws import draw
from densessl.models.health import dense_health, health
from densessl.models.memory import FeatureQueue, fill_queue_size
from densessl.models.methods.base import Method
from densessl.models.teacher import Teacher
from densessl.precision import at_least_float32, l2_normalize
from densessl.registry import MODELS
from densessl.structures import PackedBatch, ViewBatch, ViewRecord

MAX_QUEUE = 65536
DENSE_NEGATIVES = ("pooled", "cells")


@MODELS.register_module()
class MoCo(Method):
    """Momentum contrast. The head decides the version: one layer is v1, two are v2.

    Args:
        backbone: Config or module.
        head: Config or module of the global head.
        queue_size: Keys kept. From a config, None sizes it from the data: the largest power of
            two that is at most a quarter of the images, at most 65,536; built directly, the most.
        temperature: 0.2 for v2, 0.07 for v1.
        momentum: The teacher's share kept at each optimizer step.
        symmetric: Both views are queries, each with the other's key, as in BYOL: twice the work
            and twice the keys. The loss is the mean of both ways.
        dense: Config of a ``DenseBranch``, with a second queue of the same size; None leaves it
            out.
        dense_negatives: What that queue keeps of an image: "pooled", the mean of its dense keys
            (2011.09157), or "cells", one of them, drawn at each step. From means a cell differs by
            its place alone, whatever it shows.

    Raises:
        UserError: For other ``dense_negatives``.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        queue_size: int | None = None,
        temperature: float = 0.2,
        momentum: float = 0.999,
        symmetric: bool = False,
        dense: dict | DenseBranch | None = None,
        dense_negatives: str = "pooled",
        data_preprocessor: dict | None = None,
    ):
        super().__init__(backbone, data_preprocessor)
        if dense_negatives not in DENSE_NEGATIVES:
            raise UserError(
                f"model.dense_negatives is {dense_negatives!r}.",
                f"use one of: {', '.join(DENSE_NEGATIVES)}",
            )
        queue_size = queue_size or MAX_QUEUE
        self.head = self.build_head(head)
        self.queue = FeatureQueue(queue_size, self.head.out_channels)
        followed = attach_dense(self, dense)
        self.teacher = Teacher(momentum, backbone=self.backbone, head=self.head, **followed)
        if self.dense is not None:
            self.dense_queue = FeatureQueue(queue_size, self.dense_head.out_channels)
        self.temperature = temperature
        self.symmetric = symmetric
        self.dense_negatives = dense_negatives
        self.chance = math.log(queue_size + 1)

    @classmethod
    def resolve(cls, config: dict, num_images: int) -> dict:
        return fill_queue_size(config, num_images, MAX_QUEUE)

    def warnings(self, num_images: int) -> list[str]:
        lines = super().warnings(num_images) + self.queue.warnings(num_images)
        if get_world_size() == 1:
            lines.append("shuffle-BN does nothing on one device; MoCo's recipes are for several")
        return lines

    def augment(self, batch: PackedBatch) -> ViewBatch:
        """Shuffle-BN: key views travel as bytes, and are augmented where they are encoded."""
        batch = self.data_preprocessor.cast_data(batch)
        query_view, key_view = self.views_of(batch, 2)
        if self.symmetric:
            batch = batch.both_ways()
            query_view, key_view = batch.views
        query_record, key_record = batch.records
        key_view, *drawn = BatchShuffle(len(key_view), self.step).shuffle(key_view, *key_record)
        views, records = (query_view, key_view), (query_record, ViewRecord(*drawn))
        augmented = super().augment(batch._replace(views=views, records=records))
        return augmented._replace(records=batch.records)

    def loss(self, batch: ViewBatch) -> dict[str, Tensor]:
        query_view, key_view = self.views_of(batch, 2)
        # First: what it takes is free again for the student's activations.
        key, *dense_keys = self.encode_keys(key_view)
        features = self.backbone(query_view)[-1]
        query = l2_normalize(self.head(features))
        self.queue.remember(key)
        losses = {"loss": info_nce(query, key, self.queue.features, self.temperature)}
        if self.dense is not None:
            losses = self.with_cells(losses["loss"], features, *dense_keys, batch)
        return {**losses, **self.figures(query, key)}

    def with_cells(
        self,
        loss_global: Tensor,
        features: Tensor,
        key_features: Tensor,
        dense_key: Tensor,
        pooled_key: Tensor,
        batch: ViewBatch,
    ) -> dict[str, Tensor]:
        """The loss with the dense branch's, from the query's map and ``encode_keys``."""
        if self.dense_negatives == "cells":
            place = draw(dense_key[0, 0].numel(), 1, self.step, batch.index)
            self.dense_queue.remember(gather_cells(dense_key, place).squeeze(2))
        else:
            self.dense_queue.remember(pooled_key)
        cells = self.dense.cells(features, batch.records[0])
        dense_query = l2_normalize(self.dense_head(cells.features))  # (B, C, S, S)
        pairs, figures = self.dense.match(cells, Cells(key_features, batch.records[1]))
        rows = pairs.rows(dense_query, dense_key)  # (B * P, C) each
        loss_dense = info_nce(*rows, self.dense_queue.features, self.temperature)
        figures |= dense_health(dense_query)
        return {**self.dense.weigh(loss_global, loss_dense, self.step), **figures}

    def figures(self, query: Tensor, key: Tensor) -> dict[str, Tensor]:
        """What the log shows beside the loss, of (B, C) queries and their keys."""
        return {
            "log(K+1)": query.new_full((), self.chance),
            **health(query, key),
            "teacher_distance": self.teacher.distance(self),
        }

    @torch.no_grad()
    def encode_keys(self, images: Tensor) -> tuple[Tensor, ...]:
        """The teacher's side of (B, 3, H, W) images, which ``augment`` shuffled over the ranks.

        Returns:
            This rank's own (B, C) unit keys; with a dense branch also (B, F, S, S) backbone cells
            to match with, (B, C, S, S) unit dense keys, and (B, C) unit dense keys pooled before
            normalisation, for the queue.
        """
        shuffle = BatchShuffle(len(images), self.step)
        features = self.teacher.backbone(images)[-1]
        key = l2_normalize(self.teacher.head(features))
        if self.dense is None:
            return shuffle.restore(key)
        cells = pool_to_grid(features, self.dense.grid)
        dense = at_least_float32(self.teacher.dense_head(cells))
        pooled = l2_normalize(dense.mean(dim=(2, 3)))
        return shuffle.restore(key, cells, l2_normalize(dense), pooled)

    def after_optimizer_step(self) -> None:
        self.teacher.update(self)
        self.queue.advance()
        if self.dense is not None:
            self.dense_queue.advance()
