"""Patches of images: one network for all of them, and the orders that a jigsaw is told apart by."""

import math
from collections.abc import Callable, Sequence
from itertools import permutations

import numpy as np
import torch
from torch import Tensor


def encode_patches(patches: Sequence[Tensor], encode: Callable[[Tensor], Tensor]) -> Tensor:
    """Encodes P of (B, 3, h, w) patches as one batch: (B, P, C)."""
    encoded = encode(torch.cat(tuple(patches)))
    return encoded.view(len(patches), -1, encoded.shape[1]).transpose(0, 1)


def distant_permutations(count: int, length: int, seed: int) -> Tensor:
    """``count`` orders of ``length`` things, each as far from those before it as can be.

    The first is drawn; then always the one whose mean Hamming distance to all chosen is largest,
    at equal distance the first in an order that is drawn. The same for the same seed.

    Args:
        count: At most ``length`` factorial.
        length: Things to order, at most 9.
        seed: Of the draws.

    Returns:
        (count, length) int64.

    Raises:
        ValueError: For a ``count`` that is not there.

    Source: Jigsaw (1603.09246), section 4.2.
    """
    if not 0 < count <= math.factorial(length):
        raise ValueError(f"{count} permutations of {length}: there are {math.factorial(length)}")
    everything = np.array(list(permutations(range(length))), dtype=np.uint8)
    candidates = np.random.default_rng(seed).permutation(everything)
    columns = [np.ascontiguousarray(column) for column in candidates.T]
    # Places at which a candidate agrees with those chosen, summed: the least is the farthest.
    agreeing = np.zeros(len(candidates), np.int32)
    chosen = []
    for _ in range(count):
        best = int(agreeing.argmin())
        chosen.append(candidates[best])
        same = np.zeros(len(candidates), np.uint8)  # bytes: this runs over 9! of them
        for column, value in zip(columns, candidates[best], strict=True):
            same += column == value
        agreeing += same
        agreeing[best] = np.iinfo(np.int32).max // 2  # not again
    return torch.from_numpy(np.stack(chosen).astype(np.int64))
