"""DenseCL (2011.09157): MoCo v2 plus the same contrast between matched cells of the two views."""

from torch import nn

from densessl.models.dense_branch import DenseBranch
from densessl.models.methods.moco import MoCo
from densessl.registry import MODELS


@MODELS.register_module()
class DenseCL(MoCo):
    """Dense contrastive learning: MoCo with a dense branch that matches by features.

    Args:
        backbone: Config or module.
        head: Config or module of the global head.
        dense_head: Config or module of the dense head.
        grid: Side S of the dense grid; None keeps the map's own size (7 at 224 px).
        loss_lambda: Weight of the dense loss; the global one gets the rest.
        warmup_steps: Optimizer steps during which only the global loss counts; the published
            recipes have none.
        queue_size: See ``MoCo``, as the rest; both queues have the same size.
        temperature: The divisor of every cosine.
        momentum: The teacher's share kept at each optimizer step.
        symmetric: See ``MoCo``; cells are matched from either view then.
        dense_negatives: See ``MoCo``.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        dense_head: dict | nn.Module,
        grid: int | None = None,
        loss_lambda: float = 0.5,
        warmup_steps: int = 0,
        queue_size: int | None = None,
        temperature: float = 0.2,
        momentum: float = 0.999,
        symmetric: bool = False,
        dense_negatives: str = "pooled",
        data_preprocessor: dict | None = None,
    ):
        super().__init__(
            backbone,
            head,
            queue_size=queue_size,
            temperature=temperature,
            momentum=momentum,
            symmetric=symmetric,
            dense=DenseBranch(
                dense_head, grid=grid, loss_lambda=loss_lambda, warmup_steps=warmup_steps
            ),
            dense_negatives=dense_negatives,
            data_preprocessor=data_preprocessor,
        )
