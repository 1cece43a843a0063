"""Methods that are one network and one loss over the pairs of a batch."""

from torch import Tensor, nn

from densessl.models.distributed import gather_with_grad
from densessl.models.health import health
from densessl.models.methods.base import Method
from densessl.registry import MODELS
from densessl.structures import ViewBatch


class TwoView(Method):
    """Embeds two views of each image and compares the embeddings of the global batch.

    Accumulation does not enlarge that batch: each micro-batch is compared within itself.

    Args:
        backbone: Config or module.
        head: Config or module of the projection.
        loss: Config or module of what compares (N, C) with (N, C) embeddings; None is the
            method's own.
    """

    sync_bn = True
    smallest_batch = 2
    own_loss: dict

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        loss: dict | nn.Module | None = None,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(backbone, data_preprocessor)
        self.head = self.build_head(head)
        loss = loss or self.own_loss
        self.criterion = MODELS.build(loss) if isinstance(loss, dict) else loss

    def embed(self, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) views -> their (B, C) embeddings."""
        return self.head(self.backbone(one)[-1]), self.head(self.backbone(two)[-1])

    def loss(self, batch: ViewBatch) -> dict[str, Tensor]:
        z1, z2 = self.embed(*self.two_views(batch))
        loss = self.criterion(gather_with_grad(z1), gather_with_grad(z2))
        return {"loss": loss, **health(z1, z2)}
