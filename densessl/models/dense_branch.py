"""The dense branch: a method's own loss once more, over matched cells instead of whole images."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from densessl.correspondence.feature import pool_to_grid
from densessl.errors import UserError
from densessl.models.cell_match import CellMatch, Cells
from densessl.models.health import dense_health
from densessl.registry import MODELS
from densessl.structures import ViewRecord


@MODELS.register_module()
class DenseBranch:
    """What makes a method of global embeddings a dense one; ``model.dense`` of the config.

    A dense head embeds every cell of the backbone's map, a correspondence pairs the cells of the
    two views, and the method compares the pairs as it compares images: MoCo by InfoNCE against a
    second queue (which makes it DenseCL), BYOL by cosine against its teacher, Barlow Twins by the
    correlation of channels. ``L = (1 - loss_lambda) L_global + loss_lambda L_dense``.

    The trained parts belong to the method, as ``dense_head`` and, where the method predicts,
    ``dense_predictor``; see ``attach_dense``.

    Args:
        head: Config or module of the dense head.
        predictor: Config or module of the cells' predictor; for methods that have a predictor.
        match: Config of the correspondence, ``FeatureMatch`` or ``LocationMatch``, or such an
            object; None is ``FeatureMatch``.
        grid: Side S of the grid that maps are pooled to; None keeps their own size (7 at 224 px).
        loss_lambda: Weight of the dense loss; the global one gets the rest.
        warmup_steps: Optimizer steps during which only the global loss counts.
    """

    def __init__(
        self,
        head: dict | nn.Module,
        predictor: dict | nn.Module | None = None,
        match: dict | CellMatch | None = None,
        grid: int | None = None,
        loss_lambda: float = 0.5,
        warmup_steps: int = 0,
    ):
        match = match or dict(type="FeatureMatch")
        self.head, self.predictor = head, predictor
        self.match = MODELS.build(match) if isinstance(match, dict) else match
        self.grid = grid
        self.loss_lambda = loss_lambda
        self.warmup_steps = warmup_steps

    def cells(self, features: Tensor, record: ViewRecord) -> Cells:
        """The grid's cells of (B, F, H, W) backbone maps of views that ``record`` describes."""
        return Cells(pool_to_grid(features, self.grid), record)

    def both_ways(
        self,
        compare: Callable[[Tensor, Tensor, Tensor], Tensor],
        cells: Sequence[Cells],
        key_cells: Sequence[Cells],
        queries: Sequence[Tensor],
        keys: Sequence[Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compares the cells of each view with their partners in the other one.

        Args:
            compare: From (N, C) queries, their (N, C) keys and the (N,) cell of each key to a loss.
            cells: Of both views, to match.
            key_cells: Of both views, to match with; perhaps the teacher's.
            queries: (B, C, S, S) embeddings of both views.
            keys: (B, C, S, S) embeddings of both views; perhaps the teacher's.

        Returns:
            The sum of the two losses, and the figures: about the pairs, the means of both ways.
        """
        loss, both = 0, []
        for one, two in ((0, 1), (1, 0)):
            pairs, figures = self.match(cells[one], key_cells[two])
            rows = pairs.rows(queries[one], keys[two])
            loss = loss + compare(*rows, pairs.groups(key_cells[two]))
            both.append(figures)
        figures = {name: (both[0][name] + both[1][name]) / 2 for name in both[0]}
        return loss, {**figures, **dense_health(queries[0])}

    def weigh(self, loss_global: Tensor, loss_dense: Tensor, step: int) -> dict[str, Tensor]:
        """``loss`` of both together at an optimizer step, and its parts for the log."""
        weight = self.loss_lambda if step >= self.warmup_steps else 0.0
        return {
            "loss": (1 - weight) * loss_global + weight * loss_dense,
            "global": loss_global.detach(),
            "dense": loss_dense.detach(),
            "lambda": loss_global.new_full((), weight),
        }


def attach_dense(method: nn.Module, dense: dict | DenseBranch | None) -> dict[str, nn.Module]:
    """Makes ``dense`` the method's, with its trained parts, or leaves it out where it is None.

    Args:
        method: A ``Method`` that has its ``predictor``, if it is to have one.
        dense: Config of a ``DenseBranch``, or one.

    Returns:
        What a teacher has to follow of the branch, by name.

    Raises:
        UserError: If only one of method and branch has a predictor.
    """
    method.dense = MODELS.build(dense) if isinstance(dense, dict) else dense
    if method.dense is None:
        return {}
    name, predictor = type(method).__name__, method.dense.predictor
    predicts = hasattr(method, "predictor")
    if predicts and predictor is None:
        raise UserError(
            f"{name} needs model.dense.predictor: without one its dense branch may collapse.",
            "give one like model.predictor, of type DenseHead",
        )
    if predictor is not None and not predicts:
        raise UserError(
            f"{name} has no predictor, so model.dense.predictor has no place in it.",
            "leave model.dense.predictor out",
        )
    method.dense_head = method.build_head(method.dense.head)
    if predicts:
        method.dense_predictor = method.build_head(predictor, method.dense_head.out_channels)
    return {"dense_head": method.dense_head}
