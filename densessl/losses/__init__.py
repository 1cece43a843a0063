"""Losses: pure functions of tensors, with the symbol names of their papers."""

from densessl.losses.barlow_twins import barlow_twins
from densessl.losses.batch_nce import batch_nce
from densessl.losses.info_nce import info_nce
from densessl.losses.infomax import (
    amdim_nce,
    donsker_varadhan,
    jsd,
    location_nce,
    location_scores,
)
from densessl.losses.nce import instance_softmax, nce, nce_partition, pirl_nce
from densessl.losses.negative_cosine import negative_cosine
from densessl.losses.nt_xent import nt_xent
from densessl.losses.pixel_consistency import pixel_consistency
from densessl.losses.row_nce import row_nce
from densessl.losses.triplet import batch_hard_triplet, triplet
from densessl.losses.vicreg import vicreg

__all__ = [
    "amdim_nce",
    "barlow_twins",
    "batch_hard_triplet",
    "batch_nce",
    "donsker_varadhan",
    "info_nce",
    "instance_softmax",
    "jsd",
    "location_nce",
    "location_scores",
    "nce",
    "nce_partition",
    "negative_cosine",
    "nt_xent",
    "pirl_nce",
    "pixel_consistency",
    "row_nce",
    "triplet",
    "vicreg",
]
