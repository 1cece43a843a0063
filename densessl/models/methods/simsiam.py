"""SimSiam (2011.10566): BYOL without a teacher; the stop-gradient does it."""

from torch import Tensor, nn

from densessl.losses import negative_cosine
from densessl.models.health import health
from densessl.models.methods.base import Method
from densessl.registry import MODELS
from densessl.structures import ViewBatch


@MODELS.register_module()
class SimSiam(Method):
    """A siamese network with a predictor on one side and no gradient on the other.

    Args:
        backbone: Config or module.
        head: Config or module of the projector.
        predictor: Config or module of the predictor; its learning rate stays constant in the
            published recipe.
    """

    sync_bn = True
    smallest_batch = 2

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        predictor: dict | nn.Module,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(backbone, data_preprocessor)
        self.head = self.build_head(head)
        self.predictor = self.build_head(predictor, self.head.out_channels)

    def loss(self, batch: ViewBatch) -> dict[str, Tensor]:
        z1, z2 = (self.head(self.backbone(view)[-1]) for view in self.views_of(batch, 2))
        p1, p2 = self.predictor(z1), self.predictor(z2)
        loss = (negative_cosine(p1, z2.detach()) + negative_cosine(p2, z1.detach())) / 2
        return {"loss": loss, **health(z1, z2)}
