"""Metrics against their definitions, written out pixel by pixel and threshold by threshold."""

import math

import numpy as np
import pytest
import torch

from densessl.evaluation.metrics import (
    average_precision,
    average_precisions,
    confusion_matrix,
    intersection_over_union,
    mean_average_precision,
    mean_iou,
    top1,
)


def plain_average_precision(scores: list[float], positive: list[bool]) -> float:
    """Every distinct score as a threshold, from the highest."""
    area, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [hit for score, hit in zip(scores, positive, strict=True) if score >= threshold]
        precision, recall = sum(taken) / len(taken), sum(taken) / sum(positive)
        area += (recall - recall_before) * precision
        recall_before = recall
    return area


@pytest.mark.parametrize("levels", [3, 10**6])  # with many equal scores, and with none
def test_average_precision_is_its_definition(levels):
    generator = np.random.default_rng(0)
    for _ in range(20):
        scores = torch.from_numpy(generator.integers(0, levels, 30) / levels)
        positive = torch.from_numpy(generator.random(30) < 0.3)
        positive[0] = True
        expected = plain_average_precision(scores.tolist(), positive.tolist())
        assert average_precision(scores, positive) == pytest.approx(expected, abs=1e-12)


def test_average_precision_at_its_ends():
    positive = torch.tensor([True, False, True, False])
    assert average_precision(torch.tensor([4.0, 1, 3, 2]), positive) == 1
    assert average_precision(torch.zeros(4), positive) == 0.5  # scores that say nothing
    worst = average_precision(torch.tensor([1.0, 4, 2, 3]), positive)
    assert worst == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert math.isnan(average_precision(torch.rand(4), torch.zeros(4, dtype=torch.bool)))


def test_what_does_not_count_is_left_out():
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    labels = torch.tensor([[-1, 0], [1, 0], [0, 0], [1, 0]])
    first, second = average_precisions(scores, labels)
    assert first == pytest.approx(plain_average_precision([0.8, 0.7, 0.6], [True, False, True]))
    assert math.isnan(second)  # a class that is never shown
    assert math.isnan(average_precisions(scores, torch.full((4, 1), -1))[0])  # none counts
    assert mean_average_precision(scores, labels) == pytest.approx(first)


def test_top1():
    assert top1(torch.tensor([[1.0, 2], [3, 1], [0, 1]]), torch.tensor([1, 1, 1])) == 2 / 3


def test_confusion_and_iou_are_counted_pixel_by_pixel():
    generator = np.random.default_rng(1)
    predicted, truth = generator.integers(0, 4, (2, 20, 30))
    truth[generator.random((20, 30)) < 0.2] = 255
    plain = np.zeros((4, 4), int)
    for guess, true in zip(predicted.ravel(), truth.ravel(), strict=True):
        if true != 255:
            plain[true, guess] += 1
    found = confusion_matrix(torch.from_numpy(predicted), torch.from_numpy(truth), 4)
    assert found.tolist() == plain.tolist()
    known = truth != 255
    for c, iou in enumerate(intersection_over_union(found).tolist()):
        both = ((predicted == c) & (truth == c) & known).sum()
        either = (((predicted == c) | (truth == c)) & known).sum()
        assert iou == pytest.approx(both / either, abs=1e-12)


def test_a_class_that_is_nowhere_does_not_count():
    confusion = torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert mean_iou(confusion) == pytest.approx((3 / 4 + 4 / 5) / 2)
    wrongly = torch.tensor([[3, 0, 1], [0, 4, 0], [0, 0, 0]])  # predicted though absent: zero
    assert mean_iou(wrongly) == pytest.approx((3 / 4 + 1 + 0) / 3)
    assert mean_iou(torch.diag(torch.tensor([5, 7, 2]))) == 1
