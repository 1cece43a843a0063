"""MoCo v1 (1911.05722) and v2 (2003.04297): a query against its key and a queue of old keys."""

import math

import torch
from mmengine.dist import get_world_size
from torch import Tensor, nn

from densessl.losses import info_nce
from densessl.models.distributed import BatchShuffle, gather
from densessl.models.health import health
from densessl.models.memory import FeatureQueue, queue_size_for
from densessl.models.methods.base import Method
from densessl.models.teacher import Teacher
from densessl.precision import l2_normalize
from densessl.registry import MODELS
from densessl.structures import ViewBatch, ViewRecord

MAX_QUEUE = 65536


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
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        queue_size: int | None = None,
        temperature: float = 0.2,
        momentum: float = 0.999,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(backbone, data_preprocessor)
        queue_size = queue_size or MAX_QUEUE
        self.head = self.build_head(head)
        self.teacher = Teacher(momentum, backbone=self.backbone, head=self.head)
        self.queue = FeatureQueue(queue_size, self.head.out_channels)
        self.temperature = temperature
        self.chance = math.log(queue_size + 1)
        self._new_keys: list[Tensor] = []

    @classmethod
    def resolve(cls, config: dict, num_images: int) -> dict:
        size = config.get("queue_size") or queue_size_for(num_images, MAX_QUEUE)
        return {**config, "queue_size": size}

    def warnings(self, num_images: int) -> list[str]:
        lines = super().warnings(num_images) + self.queue.warnings(num_images)
        if get_world_size() == 1:
            lines.append("shuffle-BN does nothing on one device; MoCo's recipes are for several")
        return lines

    def augment(self, batch: ViewBatch) -> ViewBatch:
        """Shuffle-BN: key views travel as bytes, and are augmented where they are encoded."""
        batch = self.data_preprocessor.cast_data(batch)
        query_view, key_view = self.two_views(batch)
        query_record, key_record = batch.records
        key_view, *drawn = BatchShuffle(len(key_view), self.step).shuffle(key_view, *key_record)
        views, records = (query_view, key_view), (query_record, ViewRecord(*drawn))
        augmented = super().augment(batch._replace(views=views, records=records))
        return augmented._replace(records=batch.records)

    def loss(self, batch: ViewBatch) -> dict[str, Tensor]:
        query_view, key_view = self.two_views(batch)
        query = l2_normalize(self.head(self.backbone(query_view)[-1]))
        key = self.encode_keys(key_view)
        self._new_keys.append(key)
        loss = info_nce(query, key, self.queue.features, self.temperature)
        return {"loss": loss, **self.figures(query, key)}

    def figures(self, query: Tensor, key: Tensor) -> dict[str, Tensor]:
        """What the log shows beside the loss, of (B, C) queries and their keys."""
        return {
            "log(K+1)": query.new_tensor(self.chance),
            **health(query, key),
            "teacher_distance": self.teacher.distance(self),
        }

    @torch.no_grad()
    def encode_keys(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images shuffled by ``augment`` -> (B, C) unit keys of this rank's own."""
        shuffle = BatchShuffle(len(images), self.step)
        features = self.teacher.backbone(images)[-1]
        (key,) = shuffle.restore(l2_normalize(self.teacher.head(features)))
        return key

    def after_optimizer_step(self) -> None:
        self.teacher.update(self)
        self.queue.enqueue(gather(torch.cat(self._new_keys)))
        self._new_keys.clear()
