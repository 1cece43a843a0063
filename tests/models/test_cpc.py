"""CPC against a plain float64 transcription of its definition."""

import pytest
import torch

from densessl.errors import UserError
from densessl.models import CPC, MaskedContext, ResNet
from tests.models.checks import (
    assert_accumulates,
    assert_golden,
    assert_healthy_figures,
    assert_one_step,
    assert_same,
)
from tests.models.tiny import TinyBackbone, build, views

GRID, CONTEXT = 4, dict(type="MaskedContext", width=6, num_blocks=2)


def cpc(backbone=None, **options):
    torch.manual_seed(0)
    options = {**dict(grid=GRID, offsets=(1, 3), dim=5), **options}
    return build(CPC, CONTEXT, backbone=backbone or TinyBackbone(norm=False), **options)


def patches(size=3, seed=0):
    return views(size=size, side=8, count=GRID**2, seed=seed)


def reference(method, batch):
    """Cell by cell; a direction is another order of the same patches."""
    places, total = torch.arange(GRID**2).view(GRID, GRID), 0
    for turns, predictor in enumerate(method.predictors):
        order = places.rot90(turns)
        z = [
            [
                [method.backbone(batch.views[k][b, None])[0][0].mean((1, 2)) for k in r]
                for r in order
            ]
            for b in range(len(batch.index))
        ]
        y = [[[predictor.target.weight[:, :, 0, 0] @ cell for cell in r] for r in img] for img in z]
        cells = [cell for image in y for row in image for cell in row]
        for k, predict in zip(predictor.offsets, predictor.predict, strict=True):
            terms = []
            for b, image in enumerate(z):
                c = predictor.context(torch.stack([torch.stack(r) for r in image]).permute(2, 0, 1))
                for i in range(GRID - k):
                    for j in range(GRID):
                        p = predict.weight[:, :, 0, 0] @ c[:, i, j]
                        below = sum(torch.exp(0.1 * p @ cell) for cell in cells)
                        terms.append(-torch.log(torch.exp(0.1 * p @ y[b][i + k][j]) / below))
            total = total + sum(terms) / len(terms)
    return total


@pytest.mark.slow
@pytest.mark.parametrize("directions", [1, 4])
def test_loss_and_gradient_equal_the_definition(directions):
    method, batch = cpc(directions=directions), patches()
    with torch.no_grad():  # so that neither softmax nor gradient is flat
        for p in method.parameters():
            p.mul_(3)
    assert_same(method, batch, reference(method, batch))


def test_a_context_sees_its_row_and_those_above_and_no_row_below():
    torch.manual_seed(0)
    context = MaskedContext(8, width=8, num_blocks=5).double()
    z = torch.randn(2, 8, 8, 6, dtype=torch.float64)
    before = context(z)
    for row in range(8):
        changed = z.clone()
        changed[:, :, row, 2] += torch.randn(2, 8, dtype=torch.float64)
        moved = (context(changed) - before).abs().amax(dim=(0, 1, 3)) > 0  # by row
        assert moved.tolist() == [row <= i <= row + 5 for i in range(8)]  # a block sees a row up


def test_one_step_changes_everything_it_trains():
    assert not assert_one_step(cpc(directions=2), patches())


def test_micro_batches_have_their_own_negatives():
    assert_accumulates(cpc, patches(size=4))


def test_the_loss_of_an_untold_network_is_the_chance_that_the_log_shows():
    method = cpc(scale=0.0)
    figures = method.loss(patches())
    assert figures["loss"].item() == pytest.approx(figures["chance"].item(), abs=1e-12)
    assert_healthy_figures(figures, "chance")


def test_a_backbone_with_batch_norm_is_warned_about():
    assert any("BatchNorm" in line for line in cpc(TinyBackbone()).warnings(100))
    assert not cpc(ResNet(18, norm="gn")).warnings(100)


def test_bad_input_is_named():
    with pytest.raises(UserError, match="train_dataloader.batch_size"):
        cpc().loss(patches(size=1))
    with pytest.raises(UserError, match="CPC needs 16 views.*transform.views makes 2"):
        cpc().loss(views())
    for offsets in ((), (0, 1), (2, 4)):
        with pytest.raises(UserError, match="model.offsets .* 4 rows .model.grid"):
            cpc(offsets=offsets)
    with pytest.raises(UserError, match="model.directions is 5"):
        cpc(directions=5)


@pytest.mark.slow
def test_twenty_steps_repeat_the_golden_losses():
    # Two batches in turn and a larger scale, so that it learns something.
    batches = dict(lr=0.05, batches=lambda step: patches(seed=step % 2))
    assert_golden("cpc", cpc(scale=5.0), **batches)
    assert_golden("cpc_v2", cpc(scale=5.0, offsets=(3,), directions=4), **batches)
