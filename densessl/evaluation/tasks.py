"""The five frozen evaluations: from a backbone and labelled samples to figures in percent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from densessl.evaluation.data import LabelledSet, Sample
from densessl.evaluation.dense import dense_knn, dense_probe
from densessl.evaluation.features import C5, FrozenBackbone, centre_crop, extract, whole_image
from densessl.evaluation.knn import knn_classify
from densessl.evaluation.metrics import (
    average_precisions,
    intersection_over_union,
    mean_average_precision,
    mean_iou,
    top1,
)
from densessl.evaluation.probes import linear_probe


@dataclass(frozen=True)
class Settings:
    """How to evaluate.

    Attributes:
        size: Side of the images in pixels.
        k: Neighbours that vote; at most the labelled samples do.
        temperature: Of their votes.
        stages: Whose maps ``dense`` and ``cells`` get, 0..3 = C2..C5.
        limit: At most so many samples to learn from, None for all; what is judged on stays whole.
        seed: Of that choice, of the split of a folder of classes, and of random weights.
    """

    size: int
    k: int = 20
    temperature: float = 0.07
    stages: tuple[int, ...] = C5
    limit: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Figures:
    """What a task found, in percent.

    Attributes:
        metrics: Name -> value.
        chance: What the same metric gives without looking: always the commonest class of the
            training samples; for mAP scores that say nothing.
        by_class: Metric of each class -> class -> value, NaN left out.
        broken: A line for each file that could not be read.
        train: Samples learnt from.
        val: Samples judged on.
    """

    metrics: dict[str, float]
    chance: dict[str, float]
    by_class: dict[str, dict[str, float]]
    broken: list[str]
    train: int
    val: int


Extract = Callable[[str], tuple[Tensor, list[Sample], list[str]]]
"""``train`` or ``val`` -> features (N, ...), their N samples, a line for each broken file."""


def knn(
    name: str, found: LabelledSet, pooled: Extract, settings: Settings, device: torch.device
) -> Figures:
    """Whole images, or the crops of their boxes, by their nearest neighbours: top-1, or mAP where
    they show several classes."""
    classify = partial(knn_classify, k=settings.k, temperature=settings.temperature, device=device)
    return _classified(name, found, pooled, classify)


def linear(
    found: LabelledSet, pooled: Extract, settings: Settings, device: torch.device
) -> Figures:
    """Whole images by a linear classifier: top-1, or mAP where they show several classes."""
    return _classified("linear", found, pooled, partial(linear_probe, device=device))


def _classified(name: str, found: LabelledSet, pooled: Extract, classify: Callable) -> Figures:
    (bank, train, broken), (queries, val, more) = (pooled(part) for part in ("train", "val"))
    labels, truth = (torch.tensor([s.label for s in samples]) for samples in (train, val))
    scores = classify(bank, labels, queries, len(found.classes))
    by_class = {}
    if truth.dim() == 2:
        metric = f"{name}_mAP"
        value = mean_average_precision(scores, truth)
        guess = mean_average_precision(torch.zeros_like(scores), truth)
        by_class[f"{name}_AP"] = _named(found.classes, average_precisions(scores, truth))
    else:
        metric = f"{name}_top1"
        value = top1(scores, truth)
        guess = (truth == labels.mode().values).double().mean().item()
    return Figures(
        {metric: 100 * value},
        {metric: 100 * guess},
        by_class,
        broken + more,
        len(train),
        len(val),
    )


def dense(found: LabelledSet, maps: Extract, settings: Settings, device: torch.device) -> Figures:
    """Pixels by a 1x1 convolution on frozen maps."""
    return _segmented("dense", found, maps, partial(dense_probe, device=device))


def cells(found: LabelledSet, maps: Extract, settings: Settings, device: torch.device) -> Figures:
    """Pixels by the nearest neighbours of their cells."""
    options = dict(k=settings.k, temperature=settings.temperature, device=device)
    return _segmented("cell_knn", found, maps, partial(dense_knn, **options))


def _segmented(name: str, found: LabelledSet, maps: Extract, segment: Callable) -> Figures:
    """mIoU by one confusion matrix of the val set."""
    (bank, train, broken), (queries, val, more) = (maps(part) for part in ("train", "val"))
    masks, truth = (_Masks(samples, found.values) for samples in (train, val))
    num_classes = len(found.classes)
    confusion = segment(bank, masks, queries, truth, num_classes)
    pixels = sum(mask.flatten().bincount(minlength=256)[:num_classes] for mask in masks)
    guess = torch.zeros_like(confusion)
    guess[:, pixels.argmax()] = confusion.sum(1)
    iou = intersection_over_union(confusion).tolist()
    return Figures(
        {f"{name}_mIoU": 100 * mean_iou(confusion)},
        {f"{name}_mIoU": 100 * mean_iou(guess)},
        {f"{name}_IoU": _named(found.classes, iou)},
        broken + more,
        len(train),
        len(val),
    )


class _Masks:
    """Masks as class indices, read anew each time they are gone through."""

    def __init__(self, samples: list[Sample], values: np.ndarray):
        self.samples, self.values = samples, values

    def __iter__(self):
        for sample in self.samples:
            with Image.open(sample.label) as mask:
                yield torch.from_numpy(self.values[np.asarray(mask)])


def _named(classes: list[str], values: list[float]) -> dict[str, float]:
    pairs = zip(classes, values, strict=True)
    return {name: 100 * value for name, value in pairs if value == value}


TASKS = {
    "knn": ("images", partial(knn, "knn")),
    "linear": ("images", linear),
    "crops": ("objects", partial(knn, "crop_knn")),
    "dense": ("masks", dense),
    "cells": ("masks", cells),
}


def run_tasks(
    frozen: FrozenBackbone,
    sets: dict[str, LabelledSet],
    tasks: Sequence[str],
    settings: Settings,
    batch_size: int = 64,
    workers: int = 0,
) -> dict[str, Figures]:
    """Each task's figures; what several tasks need is extracted once.

    Args:
        frozen: The backbone.
        sets: Name of a kind -> its samples.
        tasks: Keys of ``TASKS``.
        settings: How.
        batch_size: Images at a time.
        workers: Processes that decode.
    """
    reading = dict(size=settings.size, batch_size=batch_size, workers=workers)

    @cache
    def features(kind: str, part: str) -> tuple[Tensor, list[Sample], list[str]]:
        samples = getattr(sets[kind], part)
        if kind == "masks":
            compute = partial(frozen.maps, stages=settings.stages)
            return extract(compute, samples, whole_image, **reading)
        return extract(frozen.embed, samples, centre_crop, **reading)

    figures = {}
    for task in tasks:
        kind, run = TASKS[task]
        figures[task] = run(sets[kind], partial(features, kind), settings, frozen.device)
    return figures
