"""Which cell of one view is compared with which cell of the other, in a dense branch."""

from abc import ABCMeta, abstractmethod
from typing import NamedTuple

import torch
from mmengine.dist import get_rank
from torch import Tensor

from densessl.correspondence import (
    cell_centers,
    cell_diagonals,
    match_agreement,
    match_by_feature,
    match_by_location,
    match_chance,
    near_cells,
)
from densessl.correspondence.feature import gather_cells
from densessl.errors import UserError
from densessl.precision import l2_normalize
from densessl.registry import MODELS
from densessl.structures import ViewRecord


class Cells(NamedTuple):
    """The cells of one view of each image."""

    features: Tensor  # (B, F, S, S) of the backbone, on the grid of the dense branch
    record: ViewRecord

    @property
    def centers(self) -> Tensor:
        """(B, 2, S*S) centres x, y in source pixels."""
        grid = self.features.shape[-1]
        return cell_centers(self.record.box, self.record.flip, grid).transpose(1, 2)


class Pairs(NamedTuple):
    """P pairs of cells in each image, the same number in all of them."""

    query: Tensor | None  # (B, P) indices of cells of the query views; None: all, in order
    key: Tensor  # (B, P) indices of their partners

    def rows(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, ...) maps of both views -> (B * P, C) each, in the order of images, then pairs."""
        return _rows(self.of_queries(queries)), _rows(gather_cells(keys, self.key))

    def groups(self, key: "Cells") -> Tensor:
        """(B * P,) which of the global batch's key cells each of ``rows`` has, as one number."""
        images, cells = len(self.key), key.features.shape[-1] ** 2
        image = torch.arange(images, device=self.key.device) + get_rank() * images
        return (image[:, None] * cells + self.key).flatten()

    def of_queries(self, queries: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C, P)."""
        return queries.flatten(2) if self.query is None else gather_cells(queries, self.query)


class CellMatch(metaclass=ABCMeta):
    """Pairs each query cell with the key cell nearest to it, in a sense that subclasses have.

    Many to one is allowed; nothing here has a gradient.

    Args:
        num_pairs: Pairs kept of each image, those whose cells are nearest to each other; None
            keeps a pair for every query cell.
    """

    def __init__(self, num_pairs: int | None = None):
        self.num_pairs = num_pairs

    def __call__(self, query: Cells, key: Cells) -> tuple[Pairs, dict[str, Tensor]]:
        """The pairs, and a figure about them for the log.

        Raises:
            UserError: If there are fewer query cells than ``num_pairs``.
        """
        match, kept = self.nearest(query, key), None
        if self.num_pairs is not None:
            if self.num_pairs > match.shape[1]:
                raise UserError(
                    f"model.dense.match.num_pairs is {self.num_pairs}, and a view has "
                    f"{match.shape[1]} cells.",
                    "lower it, or raise train_dataloader.dataset.transform.size or "
                    "model.dense.grid",
                )
            apart = self.points(query).flatten(2) - gather_cells(self.points(key), match)
            kept = apart.norm(dim=1).topk(self.num_pairs, dim=1, largest=False).indices
            match = match.gather(1, kept)
        pairs = Pairs(kept, match)
        return pairs, self.figures(pairs, query, key)

    @abstractmethod
    def points(self, cells: Cells) -> Tensor:
        """(B, C, ...) where the cells lie, for their distance from each other."""

    @abstractmethod
    def nearest(self, query: Cells, key: Cells) -> Tensor:
        """(B, Q) index of each query cell's partner."""

    @abstractmethod
    def figures(self, pairs: Pairs, query: Cells, key: Cells) -> dict[str, Tensor]:
        """What the log shows about ``pairs``."""


@MODELS.register_module()
class FeatureMatch(CellMatch):
    """Partners have the most similar backbone features, wherever they lie.

    Source: DenseCL (2011.09157), equation 4; ``num_pairs`` as in VICRegL (2210.01571).
    """

    def points(self, cells: Cells) -> Tensor:
        return l2_normalize(cells.features.detach())

    def nearest(self, query: Cells, key: Cells) -> Tensor:
        return match_by_feature(query.features, key.features)

    def figures(self, pairs: Pairs, query: Cells, key: Cells) -> dict[str, Tensor]:
        """``match_agreement``: the share that the crops' geometry confirms; ``match_chance``: what
        it is of guesses."""
        centers = pairs.of_queries(query.centers).transpose(1, 2), key.centers.transpose(1, 2)
        near = near_cells(*centers)
        return {
            "match_agreement": match_agreement(pairs.key, near),
            "match_chance": match_chance(near),
        }


@MODELS.register_module()
class LocationMatch(CellMatch):
    """Partners lie nearest to each other in the source image, whatever they look like.

    Where crops overlap little, many query cells have no partner in their place, only a nearest
    one: ``num_pairs`` keeps the best.

    Source: VICRegL (2210.01571), section 3.2.
    """

    def points(self, cells: Cells) -> Tensor:
        return cells.centers

    def nearest(self, query: Cells, key: Cells) -> Tensor:
        return match_by_location(query.centers.transpose(1, 2), key.centers.transpose(1, 2))

    def figures(self, pairs: Pairs, query: Cells, key: Cells) -> dict[str, Tensor]:
        """``match_distance``: between partners' centres, in diagonals of the key view's cells."""
        apart = pairs.of_queries(query.centers) - gather_cells(key.centers, pairs.key)
        diagonals = cell_diagonals(key.record.box, key.features.shape[-1])
        return {"match_distance": (apart.norm(dim=1) / diagonals[:, None]).mean()}


def _rows(cells: Tensor) -> Tensor:
    """(B, C, P) -> (B * P, C)."""
    return cells.transpose(1, 2).flatten(0, 1)
