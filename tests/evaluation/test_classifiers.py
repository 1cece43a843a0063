"""kNN and the probes: against plain loops, against the conditions of a minimum, at their ends."""

import math

import numpy as np
import pytest
import torch

from densessl.evaluation.dense import cell_counts, dense_knn, dense_probe
from densessl.evaluation.knn import knn_classify
from densessl.evaluation.metrics import mean_iou, top1
from densessl.evaluation.probes import fit_linear, linear_probe


def plain_knn(bank, labels, query, num_classes, k, temperature) -> list[float]:
    """One query, one neighbour at a time; ``labels[i]`` is the set of classes of entry i."""
    cosines = [
        sum(a * b for a, b in zip(query, entry, strict=True))
        / math.dist(query, [0] * len(query))
        / math.dist(entry, [0] * len(entry))
        for entry in bank
    ]
    nearest = sorted(range(len(bank)), key=lambda i: -cosines[i])[:k]
    weights = {i: math.exp(cosines[i] / temperature) for i in nearest}
    total = sum(weights.values())
    return [
        sum(w for i, w in weights.items() if c in labels[i]) / total for c in range(num_classes)
    ]


@pytest.mark.parametrize("k", [1, 5, 200])  # 200 is more than there are
@pytest.mark.parametrize("several", [False, True])
def test_knn_is_its_definition(k, several):
    torch.manual_seed(0)
    bank = torch.randn(40, 6, dtype=torch.float64) * 3
    queries = torch.randn(300, 6, dtype=torch.float64)  # more than one chunk
    if several:
        labels = torch.randint(-1, 2, (40, 4))
        sets = [{c for c in range(4) if row[c] == 1} for row in labels]
    else:
        labels = torch.randint(0, 4, (40,))
        sets = [{int(label)} for label in labels]
    scores = knn_classify(bank, labels, queries, 4, k=k, temperature=0.1)
    for number in (0, 1, 255, 256, 299):
        query = queries[number].tolist()
        expected = plain_knn(bank.tolist(), sets, query, 4, min(k, 40), 0.1)
        assert scores[number].tolist() == pytest.approx(expected, abs=1e-9)


def separate(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features that say the class, in one channel each, among noise on another scale."""
    torch.manual_seed(seed)
    labels = torch.arange(count) % 3
    signal = 5 * torch.nn.functional.one_hot(labels, 3) + 0.1 * torch.randn(count, 3)
    return torch.cat([signal, torch.full((count, 1), 7.0)], dim=1), labels


@pytest.mark.parametrize("classify", [knn_classify, linear_probe])
def test_perfect_features_give_everything_and_noise_gives_chance(classify):
    (bank, labels), (queries, truth) = separate(60), separate(30, seed=1)
    assert top1(classify(bank, labels, queries, 3), truth) == 1
    noise, more = torch.randn(300, 8), torch.randn(600, 8)
    guessed = top1(classify(noise, torch.arange(300) % 3, more, 3), torch.arange(600) % 3)
    assert abs(guessed - 1 / 3) < 0.1  # five standard errors


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("several", [False, True])
def test_the_probe_is_the_minimum_of_its_objective(several):
    """The gradient, written out in numpy, is zero there; the objective is strictly convex."""
    torch.manual_seed(0)
    features = torch.randn(50, 5, dtype=torch.float64) * torch.tensor([1, 10, 0.1, 3, 0]) + 2
    if several:
        targets = (torch.rand(50, 3) < 0.4).double()
        weights = (torch.rand(50, 3) < 0.8).double()
    else:
        targets = torch.rand(50, 3, dtype=torch.float64).softmax(1)
        weights = torch.rand(50, dtype=torch.float64)
    fitted = fit_linear(features, targets, weights, several, penalty=0.03)

    # Classes that do not exclude each other have an objective each, with the whole penalty.
    x, y, w = features.numpy(), targets.numpy(), weights.numpy() / weights.numpy().sum()
    w = w * 3 if several else w
    std = x.std(0)
    moving = std > 1e-9
    standard = (x[:, moving] - x[:, moving].mean(0)) / std[moving]
    weight = fitted.weight.numpy()[:, moving] * std[moving]
    assert not fitted.weight[:, ~moving].any()  # a channel that never changes says nothing
    scores = fitted(features).numpy()
    predicted = 1 / (1 + np.exp(-scores)) if several else softmax(scores)
    error = (predicted - y) * (w if several else w[:, None])
    assert np.abs(error.T @ standard + 0.03 * weight).max() < 1e-5
    assert np.abs(error.sum(0)).max() < 1e-5


def test_an_entry_that_does_not_count_changes_nothing():
    torch.manual_seed(0)
    features, labels = torch.randn(20, 4, dtype=torch.float64), torch.randint(0, 2, (20, 2))
    labels[3, 0] = -1
    other = labels.clone()
    scores = linear_probe(features, labels, features, 2)
    other[3, 0] = 0
    assert not torch.allclose(linear_probe(features, other, features, 2), scores, atol=1e-3)
    # Class 1, which image 3 does count for, is fitted as if class 0 were not there.
    same = linear_probe(features, labels[:, [1, 1]], features, 2)
    assert torch.equal(scores.argsort(0)[:, 1], same.argsort(0)[:, 1])


@pytest.mark.parametrize("shape", [(10, 15), (15, 10)])
def test_cells_count_the_pixels_they_cover(shape):
    mask = torch.from_numpy(np.random.default_rng(0).integers(0, 3, shape))
    mask[:4, :4] = 255
    counts = cell_counts(mask, (3, 3), 3) * 15**2
    for row in range(3):
        for column in range(3):
            part = mask[row * 5 : row * 5 + 5, column * 5 : column * 5 + 5]
            expected = [(part == c).sum().item() for c in range(3)]
            assert counts[row * 3 + column].tolist() == pytest.approx(expected, abs=1e-4)
    cells = counts.view(3, 3, 3)  # below the picture, or beside it, there is only padding
    assert (cells[2] if shape[0] == 10 else cells[:, 2]).sum() == 0


def checkerboards(count: int, cell: int = 8) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Maps (count, 2, 4, 4) whose channels say which of two classes a cell is, and the masks."""
    torch.manual_seed(0)
    cells = torch.rand(count, 4, 4) < 0.5
    maps = torch.stack([cells.float(), 1 - cells.float()], dim=1) * 3
    masks = cells.repeat_interleave(cell, 1).repeat_interleave(cell, 2).to(torch.uint8)
    return maps, list(masks)


@pytest.mark.parametrize("judge", [dense_probe, dense_knn])
def test_dense_figures_of_maps_that_tell_and_of_noise(judge):
    maps, masks = checkerboards(12)
    confusion = judge(maps, masks, maps, masks, 2)
    assert confusion.sum() == 12 * 32 * 32
    told = mean_iou(confusion)
    noise = mean_iou(judge(maps, masks, torch.randn(12, 2, 4, 4), masks, 2))
    assert told > 0.75 > 0.45 > noise  # bilinear edges cost what is missing to 1; chance is 1/3
    assert mean_iou(judge(maps, masks, maps[:, :, :1, :1], [m[:8, :8] for m in masks], 2)) == 1


def test_cells_vote_with_the_shares_of_their_classes():
    """Against plain loops over cells; masks are as large as maps, so that nothing is resized."""
    rng = np.random.default_rng(0)
    train, val = torch.from_numpy(rng.normal(size=(2, 5, 6, 4, 4)))
    masks = list(torch.from_numpy(rng.integers(0, 3, (5, 8, 8)).astype(np.uint8)))
    masks[0][:2, :2] = 255  # a cell without a label does not vote
    masks[1][0, 0] = 255
    truth = list(torch.from_numpy(rng.integers(0, 3, (5, 4, 4)).astype(np.uint8)))
    bank, shares = [], []
    for image, mask in zip(train, masks, strict=True):
        for row in range(4):
            for column in range(4):
                pixels = mask[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten().tolist()
                known = [pixel for pixel in pixels if pixel != 255]
                if known:
                    bank.append(image[:, row, column])
                    shares.append([known.count(c) / len(known) for c in range(3)])
    assert len(bank) == 5 * 16 - 1
    confusion = np.zeros((3, 3), int)
    for image, mask in zip(val, truth, strict=True):
        for row in range(4):
            for column in range(4):
                query = image[:, row, column]
                cosine = [float(torch.cosine_similarity(query, entry, dim=0)) for entry in bank]
                nearest = sorted(range(len(bank)), key=lambda i: -cosine[i])[:7]
                votes = [
                    sum(math.exp(cosine[i] / 0.5) * shares[i][c] for i in nearest) for c in range(3)
                ]
                confusion[mask[row, column], int(np.argmax(votes))] += 1
    found = dense_knn(train, masks, val, truth, 3, k=7, temperature=0.5)
    assert found.tolist() == confusion.tolist()


def test_neighbours_are_sought_among_so_many_cells(monkeypatch):
    maps, masks = checkerboards(12)
    whole = dense_knn(maps, masks, maps, masks, 2)
    monkeypatch.setattr("densessl.evaluation.dense.BANK", 24)
    assert mean_iou(dense_knn(maps, masks, maps, masks, 2)) > 0.75  # two kinds of cells
    monkeypatch.setattr("densessl.evaluation.dense.BANK", 1)
    assert not torch.equal(dense_knn(maps, masks, maps, masks, 2), whole)


def test_dense_probe_ignores_void_and_padding():
    maps, masks = checkerboards(12)
    whole = dense_probe(maps, masks, maps, masks, 2)
    void = [mask.clone() for mask in masks]
    for mask in void:
        mask[:8, :8] = 255  # a whole cell
    spoilt = maps.clone()
    spoilt[:, :, 0, 0] = torch.randn(12, 2) * 100
    fitted = dense_probe(spoilt, void, maps, masks, 2)  # the cell was not learnt from
    assert (fitted - whole).abs().sum() < 0.02 * whole.sum()
    assert dense_probe(maps, masks, maps, void, 2).sum() == 12 * (32 * 32 - 64)
    flat = [mask[:16] for mask in masks]  # twice as wide as high: the lower rows are padding
    spoilt = maps.clone()
    spoilt[:, :, 2:] = torch.randn(12, 2, 2, 4) * 100
    assert mean_iou(dense_probe(spoilt, flat, maps, masks, 2)) > 0.75
    assert mean_iou(dense_probe(maps, masks, spoilt, flat, 2)) > 0.75
