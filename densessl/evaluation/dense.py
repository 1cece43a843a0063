"""Frozen maps judged pixel by pixel: each cell by a linear classifier, or by its neighbours."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.evaluation.knn import knn_classify
from densessl.evaluation.metrics import IGNORED, confusion_matrix
from densessl.evaluation.probes import fit_linear
from densessl.numeric import spaced

BANK = 100_000
"""Cells that ``dense_knn`` keeps: its time is their number times that of the cells to judge."""


class Cells(NamedTuple):
    """The cells of maps that have labelled pixels."""

    features: Tensor  # (N, C)
    shares: Tensor  # (N, K) of each class among the labelled pixels
    pixels: Tensor  # (N,) how many those are, in shares of an image


def dense_probe(
    train_maps: Tensor,
    train_masks: Iterable[Tensor],
    val_maps: Tensor,
    val_masks: Iterable[Tensor],
    num_classes: int,
    device: torch.device | None = None,
) -> Tensor:
    """A 1x1 convolution on frozen maps, its scores resized bilinearly to the mask.

    It is fitted to the cells of the maps: the target of a cell is the share of each class among
    its labelled pixels, its weight how many those are.

    Args:
        train_maps: (N, C, h, w) of square images: what is no square was padded right or below.
        train_masks: N masks (H, W) of class indices, ``IGNORED`` where unknown; of any size, the
            longer side spans the map.
        val_maps: (M, C, h, w).
        val_masks: M masks.
        num_classes: K.
        device: Where to compute, a map of ``val_maps`` at a time; by default where ``train_maps``
            are.

    Returns:
        The confusion matrix over all pixels of all ``val_masks``, (K, K) on the CPU.
    """
    cells = labelled_cells(train_maps, train_masks, num_classes)
    features = cells.features.to(device)
    classifier = fit_linear(features, cells.shares, cells.pixels)
    scores = (classifier(each.to(features.device).movedim(0, -1)) for each in val_maps)
    return confusion_of_cells(scores, val_masks, num_classes)


def dense_knn(
    train_maps: Tensor,
    train_masks: Iterable[Tensor],
    val_maps: Tensor,
    val_masks: Iterable[Tensor],
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    device: torch.device | None = None,
) -> Tensor:
    """Cells by their nearest labelled cells; the votes are resized bilinearly to the mask.

    A neighbour's vote is the share of each class among its labelled pixels. Nothing is fitted. At
    most ``BANK`` cells are learned from, evenly spaced ones.

    Args:
        train_maps: As ``dense_probe``'s, and so are the next four.
        train_masks: N masks.
        val_maps: (M, C, h, w).
        val_masks: M masks.
        num_classes: K.
        k: How many neighbours vote, see ``knn_classify``.
        temperature: Of their votes.
        device: Where to compute; by default where ``train_maps`` are.

    Returns:
        The confusion matrix over all pixels of all ``val_masks``, (K, K) on the CPU.

    Source: Hummingbird (2306.01667), section 3, with InstDisc's votes.
    """
    cells = labelled_cells(train_maps, train_masks, num_classes)
    kept = spaced(len(cells.features), BANK)
    queries = val_maps.movedim(1, -1)
    votes = knn_classify(
        cells.features[kept],
        cells.shares[kept],
        queries.flatten(0, 2),
        num_classes,
        k,
        temperature,
        device,
    ).unflatten(0, queries.shape[:3])
    return confusion_of_cells((each.to(device) for each in votes), val_masks, num_classes)


def labelled_cells(maps: Tensor, masks: Iterable[Tensor], num_classes: int) -> Cells:
    """The cells of ``maps`` (N, C, h, w) under ``masks``, see ``dense_probe``; no others."""
    counts = torch.cat([cell_counts(mask, maps.shape[-2:], num_classes) for mask in masks])
    pixels = counts.sum(1)
    known = pixels > 0
    counts, pixels = counts[known], pixels[known]
    return Cells(maps.movedim(1, -1).flatten(0, 2)[known], counts / pixels[:, None], pixels)


def confusion_of_cells(
    scores: Iterable[Tensor], masks: Iterable[Tensor], num_classes: int
) -> Tensor:
    """Resizes the scores of cells to the mask and compares, a map at a time where the scores are.

    Args:
        scores: M of (h, w, K).
        masks: M masks, see ``dense_probe``.
        num_classes: K.

    Returns:
        The confusion matrix of all pixels, (K, K) on the CPU.
    """
    total = torch.zeros(num_classes, num_classes, dtype=torch.long)
    for cells, mask in zip(scores, masks, strict=True):
        (height, width), side = mask.shape, max(mask.shape)
        image = F.interpolate(
            cells.movedim(-1, 0)[None], (side, side), mode="bilinear", align_corners=False
        )
        predicted = image[0, :, :height, :width].argmax(0)
        total += confusion_matrix(predicted, mask.to(predicted.device), num_classes).cpu()
    return total


def cell_counts(mask: Tensor, grid: tuple[int, int], num_classes: int) -> Tensor:
    """Pixels of each class in each cell of a square that ``mask`` fills from its top left corner.

    Args:
        mask: (H, W) class indices, ``IGNORED`` where unknown.
        grid: Rows h and columns w of the cells.
        num_classes: K.

    Returns:
        (h * w, K) float32, row-major; each cell's share of a mask's pixels, of which the side is
        max(H, W), so that masks of all sizes count alike.
    """
    side, (rows, columns) = max(mask.shape), grid
    y, x = (torch.arange(length, device=mask.device) for length in mask.shape)
    cell = (y * rows // side)[:, None] * columns + x * columns // side
    known = mask != IGNORED
    pairs = cell[known] * num_classes + mask[known].long()
    counts = pairs.bincount(minlength=rows * columns * num_classes)
    return counts.view(rows * columns, num_classes).float() / side**2
