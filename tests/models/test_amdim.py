"""AMDIM against a plain float64 transcription of its definition."""

import pytest
import torch

from densessl.errors import UserError
from densessl.models import AMDIM
from densessl.models.draws import draw
from tests import plain
from tests.models.checks import (
    assert_accumulates,
    assert_golden,
    assert_healthy_figures,
    assert_one_step,
    assert_same,
    assert_wants_two_views,
)
from tests.models.tiny import TinyBackbone, TinyPyramid, build, views

EMBEDDING = dict(type="ShortcutHead", hidden_channels=(6,), out_channels=7)


def amdim(backbone=None, norm=True, **options):
    torch.manual_seed(0)
    embedding = dict(EMBEDDING, norm=norm)
    return build(AMDIM, embedding, backbone=backbone or TinyPyramid(norm), **options)


def two_views(size=3, seed=0):
    return views(size=size, seed=seed)


@pytest.mark.slow
def test_loss_and_gradient_equal_the_definition():
    method, batch = amdim(penalty=0.2, clip=3.0), two_views()
    method.step = 5
    place = draw(25, 1, 5, batch.index)[:, 0].tolist()
    assert len(set(place)) > 1
    # Both views are one batch for BatchNorm; the maps have 14 x 14 and 7 x 7 cells.
    first, last = method.backbone(torch.cat(batch.views))
    halves = first.unflatten(2, (7, 2)).unflatten(4, (7, 2)).mean((3, 5))
    fifths = [
        [
            last[:, :, i * 7 // 5 : -(-(i + 1) * 7 // 5), j * 7 // 5 : -(-(j + 1) * 7 // 5)]
            for j in range(5)
        ]
        for i in range(5)
    ]
    fives = torch.stack([torch.stack([c.mean((2, 3)) for c in r], 2) for r in fifths], 2)
    f7, f5 = method.embed_7(halves).flatten(2), method.embed_5(fives).flatten(2)
    f1 = method.embed_1(last.mean((2, 3)))
    expected = 0
    for a, b in ((slice(0, 3), slice(3, 6)), (slice(3, 6), slice(0, 3))):
        one = torch.stack([f5[a][i, :, place[i]] for i in range(3)])
        for source, locations in ((f1[a], f5[b]), (f1[a], f7[b]), (one, f5[b])):
            expected = expected + plain.amdim_nce(source, locations, 0, 0.2, 3.0) / 2
    assert_same(method, batch, expected)


def test_the_source_cell_changes_with_the_step_and_the_image():
    batch = two_views(size=8)
    places = torch.stack([draw(25, 1, step, batch.index)[:, 0] for step in range(6)])
    assert len(places.unique()) > 10
    method = amdim()
    figures = []
    for method.step in (0, 1):
        figures.append(method.loss(batch))
    assert figures[0]["5to5"] != figures[1]["5to5"] and figures[0]["1to5"] == figures[1]["1to5"]


def test_one_step_changes_everything_it_trains():
    assert_one_step(amdim(), two_views())


def test_micro_batches_have_their_own_negatives():
    assert_accumulates(lambda: amdim(norm=False), two_views(size=4))


def test_bad_input_and_the_log():
    assert_wants_two_views(amdim())
    with pytest.raises(UserError, match="model.backbone.out_indices gives 1"):
        amdim(TinyBackbone())
    assert_healthy_figures(amdim().loss(two_views()), "1to5", "1to7", "5to5")


@pytest.mark.slow
def test_twenty_steps_repeat_the_golden_losses():
    batches = dict(lr=0.05, batches=lambda step: two_views(seed=step % 2))
    assert_golden("amdim", amdim(), **batches)
