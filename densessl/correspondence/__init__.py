"""Which cell of view A belongs to which cell of view B."""

from densessl.correspondence.feature import match_by_feature
from densessl.correspondence.geometry import (
    cell_centers,
    match_agreement,
    match_chance,
    near_cells,
)
from densessl.correspondence.location import cell_diagonals, match_by_distance, match_by_location

__all__ = [
    "cell_centers",
    "cell_diagonals",
    "match_agreement",
    "match_by_distance",
    "match_by_feature",
    "match_by_location",
    "match_chance",
    "near_cells",
]
