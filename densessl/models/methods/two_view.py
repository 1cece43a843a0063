"""Methods that are one network and one loss over the pairs of a batch."""

from collections.abc import Callable

from torch import Tensor, nn

from densessl.models.dense_branch import DenseBranch, attach_dense
from densessl.models.distributed import gather, gather_with_grad
from densessl.models.health import health
from densessl.models.methods.base import Method
from densessl.registry import MODELS
from densessl.structures import ViewBatch, ViewRecord


class TwoView(Method):
    """Embeds two views of each image and compares the embeddings of the global batch.

    Accumulation does not enlarge that batch: each micro-batch is compared within itself.

    Args:
        backbone: Config or module.
        head: Config or module of the projection.
        loss: Config or module of what compares (N, C) with (N, C) embeddings, see
            ``pair_losses.py``; None is the method's own.
        dense: Config of a ``DenseBranch``; None leaves it out. Its pairs of cells, of all images
            of the global batch, are then the rows that ``loss`` compares.
    """

    sync_bn = True
    smallest_batch = 2
    own_loss: dict

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        loss: dict | nn.Module | None = None,
        dense: dict | DenseBranch | None = None,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(backbone, data_preprocessor)
        self.head = self.build_head(head)
        loss = loss or self.own_loss
        self.criterion = MODELS.build(loss) if isinstance(loss, dict) else loss
        attach_dense(self, dense)

    def loss(self, batch: ViewBatch) -> dict[str, Tensor]:
        maps = self.each(lambda view: self.backbone(view)[-1], *self.views_of(batch, 2))
        z1, z2 = self.each(self.head, *maps)
        losses = {"loss": self.compare(z1, z2)}
        if self.dense is not None:
            losses = self.with_cells(losses["loss"], maps, batch.records)
        return {**losses, **health(z1, z2)}

    def each(
        self, part: Callable[[Tensor], Tensor], one: Tensor, two: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What ``part`` of the network makes of the two views, or of what they have become."""
        return part(one), part(two)

    def compare(self, z1: Tensor, z2: Tensor, group: Tensor | None = None) -> Tensor:
        """The loss of this process's (N, C) embeddings, of images or of cells, among those of
        all processes; (N,) ``group`` says which rows share a cell of the second view."""
        told = group is not None and getattr(self.criterion, "negatives", False)
        z = gather_with_grad(z1), gather_with_grad(z2)
        return self.criterion(*z, gather(group)) if told else self.criterion(*z)

    def with_cells(
        self,
        loss_global: Tensor,
        maps: tuple[Tensor, Tensor],
        records: tuple[ViewRecord, ViewRecord],
    ) -> dict[str, Tensor]:
        """The loss with the dense branch's, the mean of both ways of matching."""
        cells = list(map(self.dense.cells, maps, records))
        z = self.each(self.dense_head, *(x.features for x in cells))
        both, figures = self.dense.both_ways(self.compare, cells, cells, z, z)
        return {**self.dense.weigh(loss_global, both / 2, self.step), **figures}
