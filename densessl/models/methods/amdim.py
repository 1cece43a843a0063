"""AMDIM (1906.00910): features of one view predict those of the other, across scales."""

import torch
from mmengine.dist import get_rank
from torch import Tensor, nn

from densessl.correspondence.feature import pool_to_grid
from densessl.losses import amdim_nce
from densessl.models.distributed import gather_with_grad
from densessl.models.draws import draw
from densessl.models.health import health
from densessl.models.methods.base import Method
from densessl.registry import MODELS
from densessl.structures import ViewBatch


@MODELS.register_module()
class AMDIM(Method):
    """Augmented multiscale Deep InfoMax, between scales 1x1, 5x5 and 7x7.

    The backbone gives two maps or more: 7x7 cells are pooled from the first, 5x5 from the second,
    and the last as a whole is 1x1. Both views should share one flip (``shared_flip``).
    Accumulation does not enlarge the batch: each micro-batch has its own negatives only.

    Args:
        backbone: Config or module; its ``out_indices`` choose the maps.
        embedding: Config of the head that each scale has.
        penalty: Weight of the mean squared score.
        clip: Bound of a score.

    Raises:
        UserError: If the backbone gives one map.
    """

    sync_bn = True
    smallest_batch = 2

    def __init__(
        self,
        backbone: dict | nn.Module,
        embedding: dict,
        penalty: float = 0.05,
        clip: float = 20.0,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(backbone, data_preprocessor)
        channels = self.maps_of_backbone(2)
        self.embed_7, self.embed_5, self.embed_1 = (
            self.build_head(embedding, channels[place]) for place in (0, 1, -1)
        )
        self.penalty = penalty
        self.clip = clip

    def loss(self, batch: ViewBatch) -> dict[str, Tensor]:
        maps = self.backbone(torch.cat(self.views_of(batch, 2)))  # of 2B images
        f7 = self.embed_7(pool_to_grid(maps[0], 7)).flatten(2)  # (2B, C, 49)
        f5 = self.embed_5(pool_to_grid(maps[1], 5)).flatten(2)  # (2B, C, 25)
        f1 = self.embed_1(maps[-1].mean(dim=(2, 3)))  # (2B, C)
        # One place of each image, the same in both views.
        place = draw(25, 1, self.step, batch.index).repeat(2, 1)
        one_of_5 = torch.take_along_dim(f5, place[:, None], dim=2).squeeze(2)  # (2B, C)

        terms = {
            "1to5": self.both_ways(f1, f5),
            "1to7": self.both_ways(f1, f7),
            "5to5": self.both_ways(one_of_5, f5),
        }
        return {
            "loss": sum(terms.values()),
            **{name: term.detach() for name, term in terms.items()},
            **health(*f1.chunk(2)),
        }

    def both_ways(self, source: Tensor, locations: Tensor) -> Tensor:
        """(2B, C) vectors of both views against (2B, C, L) locations, each of the other view."""
        (f_a, f_b), (l_a, l_b) = source.chunk(2), locations.chunk(2)
        return (self.predict(f_a, l_b) + self.predict(f_b, l_a)) / 2

    def predict(self, f: Tensor, locations: Tensor) -> Tensor:
        """``amdim_nce`` with the locations of the global batch."""
        first = get_rank() * len(f)
        return amdim_nce(f, gather_with_grad(locations), first, self.penalty, self.clip)
