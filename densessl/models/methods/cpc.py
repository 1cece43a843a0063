"""CPC (1807.03748) and CPC v2 (1905.09272): what lies below, predicted from what lies above."""

import math

from mmengine.dist import get_rank
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from densessl.errors import UserError
from densessl.losses import row_nce
from densessl.models.distributed import gather_with_grad
from densessl.models.heads import RowPredictor
from densessl.models.health import health
from densessl.models.methods.base import Method
from densessl.models.patches import encode_patches
from densessl.registry import MODELS
from densessl.structures import ViewBatch


@MODELS.register_module()
class CPC(Method):
    """Contrastive predictive coding over a grid of overlapping patches.

    The views are the patches, row by row, as the worker cuts them (a view with ``stride``). The
    defaults are v1's; v2 has ``offsets=(3,)``, ``directions=4``, patches of 80 pixels and jitter.
    Accumulation does not enlarge the batch: each micro-batch has its own negatives only.

    Args:
        backbone: Config or module; patches go through it one by one. Give it no BatchNorm, which
            tells patches of each other.
        context: Config of the context network; each direction has one of its own.
        grid: Patches along each side, S.
        offsets: How many rows below the context the predicted rows lie. Those that overlap the
            context's own row are no task.
        directions: 1 predicts downwards; 2, 3 or 4 turn the grid by as many quarters beside.
        dim: Channels in which predictions and cells are compared.
        scale: Factor of every score.

    Raises:
        UserError: For offsets that leave the grid, or directions that there are not.
    """

    smallest_batch = 2

    def __init__(
        self,
        backbone: dict | nn.Module,
        context: dict,
        grid: int = 7,
        offsets: tuple[int, ...] = (2, 3, 4, 5),
        directions: int = 1,
        dim: int = 64,
        scale: float = 0.1,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(backbone, data_preprocessor)
        if not offsets or [*offsets] != sorted({*offsets} & {*range(1, grid)}):
            raise UserError(
                f"model.offsets is {tuple(offsets)}, and the grid has {grid} rows (model.grid).",
                f"list some of 1 to {grid - 1}",
            )
        if directions not in (1, 2, 3, 4):
            raise UserError(f"model.directions is {directions}.", "use 1 (v1) to 4 (v2)")
        channels = self.backbone.out_channels[-1]
        self.predictors = nn.ModuleList(
            RowPredictor(self.build_head(context), channels, offsets, dim)
            for _ in range(directions)
        )
        self.grid = grid
        self.scale = scale

    def warnings(self, num_images: int) -> list[str]:
        lines = super().warnings(num_images)
        if any(isinstance(module, _BatchNorm) for module in self.backbone.modules()):
            lines.append(
                "the backbone's BatchNorm tells patches of each other, which makes CPC's task "
                "easy: set model.backbone.norm to gn"
            )
        return lines

    def loss(self, batch: ViewBatch) -> dict[str, Tensor]:
        patches = self.views_of(batch, self.grid**2)
        z = encode_patches(patches, lambda x: self.backbone(x)[-1].mean(dim=(2, 3)))
        z = z.transpose(1, 2).unflatten(2, (self.grid, self.grid))  # (B, C, S, S)

        terms = []
        for turns, predictor in enumerate(self.predictors):
            predictions, targets = predictor(z.rot90(turns, (2, 3)))
            cells, first = gather_with_grad(targets), get_rank() * len(targets)
            terms += [row_nce(p, cells, first, self.scale) for p in predictions]
        nearest = predictions[0]
        rows = targets[:, :, -nearest.shape[2] :], nearest
        return {
            "loss": sum(terms),
            "chance": z.new_full((), len(terms) * math.log(cells[:, 0].numel())),
            **health(*(cells.movedim(1, -1).flatten(0, 2) for cells in rows)),
        }
