"""Figures for the log that show a collapse long before an evaluation does."""

import torch
from torch import Tensor

from densessl.precision import full_precision, l2_normalize


@torch.no_grad()
@full_precision
def health(one: Tensor, two: Tensor) -> dict[str, Tensor]:
    """How the embeddings of this process's images lie on the unit sphere.

    Args:
        one: (N, C) embeddings of one view of each image; L2-normalised here.
        two: (N, C) embeddings of the other view, perhaps the teacher's.

    Returns:
        ``embedding_std``: mean standard deviation of a channel of ``one``, times sqrt(C): 1 when
        the vectors fill the sphere evenly, 0 when all are the same. ``alignment``: mean squared
        distance between the two views of an image, 0..4. ``uniformity``: logarithm of the mean
        Gaussian potential of the pairs of ``one``: 0 when all are the same, about -4 when they
        fill the sphere evenly. A single image has the alignment only.

    Source: embedding_std from SimSiam (2011.10566), section 4.1; the others from 2005.10242.
    """
    one, two = l2_normalize(one), l2_normalize(two)
    alignment = {"alignment": (one - two).square().sum(1).mean()}
    if len(one) < 2:
        return alignment
    return {
        "embedding_std": one.std(0, correction=0).mean() * one.shape[1] ** 0.5,
        **alignment,
        "uniformity": torch.pdist(one).square().mul(-2).exp().mean().log(),
    }


@torch.no_grad()
@full_precision
def dense_health(cells: Tensor) -> dict[str, Tensor]:
    """How the cells of this process's images differ at one place of the map.

    A network knows the place of a cell from the padding around the map. A dense loss that the
    place alone can lower may end with embeddings of nothing else.

    Args:
        cells: (B, C, S, S) embeddings of the cells of one view of each image; L2-normalised here.

    Returns:
        ``dense_std``: as ``embedding_std`` of ``health``, of the cells at the same place of all
        images, mean over places; 0 when the place alone tells cells apart. Nothing for one image.
    """
    if len(cells) < 2:
        return {}
    std = l2_normalize(cells).std(0, correction=0)
    return {"dense_std": std.mean() * cells.shape[1] ** 0.5}
