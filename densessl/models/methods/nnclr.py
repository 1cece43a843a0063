"""NNCLR (2104.14548): the positive is the nearest neighbour of the other view in a queue."""

from mmengine.dist import get_rank
from torch import Tensor, nn

from densessl.losses import batch_nce
from densessl.models.distributed import gather_with_grad
from densessl.models.health import health
from densessl.models.memory import FeatureQueue, fill_queue_size
from densessl.models.methods.base import Method
from densessl.precision import l2_normalize
from densessl.registry import MODELS
from densessl.structures import ViewBatch

MAX_QUEUE = 98304


@MODELS.register_module()
class NNCLR(Method):
    """Nearest-neighbour contrast.

    Accumulation does not enlarge the batch: each micro-batch has its own negatives only.

    Args:
        backbone: Config or module.
        head: Config or module of the projector.
        predictor: Config or module of the predictor.
        queue_size: Projections kept to choose neighbours from. From a config, None sizes it from
            the data: the largest power of two that is at most a quarter of the images, at most
            98,304; built directly, the most.
        temperature: The divisor of every cosine.
    """

    sync_bn = True
    smallest_batch = 2

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        predictor: dict | nn.Module,
        queue_size: int | None = None,
        temperature: float = 0.1,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(backbone, data_preprocessor)
        self.head = self.build_head(head)
        self.predictor = self.build_head(predictor, self.head.out_channels)
        self.queue = FeatureQueue(queue_size or MAX_QUEUE, self.head.out_channels)
        self.temperature = temperature

    @classmethod
    def resolve(cls, config: dict, num_images: int) -> dict:
        return fill_queue_size(config, num_images, MAX_QUEUE)

    def warnings(self, num_images: int) -> list[str]:
        return super().warnings(num_images) + self.queue.warnings(
            num_images, "a neighbour that shows them nothing new"
        )

    def loss(self, batch: ViewBatch) -> dict[str, Tensor]:
        z1, z2 = (self.head(self.backbone(view)[-1]) for view in self.views_of(batch, 2))
        p1, p2 = l2_normalize(self.predictor(z1)), l2_normalize(self.predictor(z2))
        z1, z2 = l2_normalize(z1.detach()), l2_normalize(z2.detach())
        self.queue.remember(z1)
        forth = self.contrast(self.queue.nearest(z1), p2)
        back = self.contrast(self.queue.nearest(z2), p1)
        return {"loss": (forth + back) / 2, **health(z1, z2)}

    def contrast(self, neighbours: Tensor, predictions: Tensor) -> Tensor:
        """Each neighbour finds the prediction of its own image among those of the global batch."""
        keys, offset = gather_with_grad(predictions), get_rank() * len(predictions)
        return batch_nce(neighbours, keys, self.temperature, offset)

    def after_optimizer_step(self) -> None:
        self.queue.advance()
