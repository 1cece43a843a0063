"""Which cell of view A belongs to which cell of view B."""

from densessl.correspondence.feature import match_by_feature
from densessl.correspondence.geometry import cell_centers, match_agreement

__all__ = ["cell_centers", "match_agreement", "match_by_feature"]
