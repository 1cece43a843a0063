"""Deep InfoMax against a plain float64 transcription of its definition."""

from copy import deepcopy

import pytest
import torch

from densessl.errors import UserError
from densessl.models import DIM, ShortcutHead
from densessl.models.draws import draw
from tests import plain
from tests.models.checks import (
    assert_accumulates,
    assert_golden,
    assert_healthy_figures,
    assert_one_step,
    assert_same,
)
from tests.models.tiny import TinyBackbone, TinyPyramid, build, optimizer_for, views

HEAD = dict(type="GlobalHead", hidden_channels=(), out_channels=5)
EMBEDDING = dict(type="ShortcutHead", hidden_channels=(6,), out_channels=7)
ALL = dict(global_weight=0.5, grid=2)


def dim(backbone=None, norm=True, **options):
    torch.manual_seed(0)
    judge = dict(type="GlobalHead", hidden_channels=(16, 8), out_channels=1)
    options = {**dict(discriminator=judge), **options}
    embedding = dict(EMBEDDING, norm=norm)
    return build(DIM, HEAD, embedding, backbone=backbone or TinyPyramid(norm), **options)


def one_view(size=4, seed=0):
    return views(size=size, side=12, count=1, seed=seed)


def reference(method, batch, name, estimator):
    """The term, from each image's code and its cells."""
    first, last = method.backbone(batch.views[0])
    if method.grid is not None:
        step = first.shape[2] // method.grid
        rows = [first[:, :, i * step : (i + 1) * step] for i in range(method.grid)]
        cells = [r[..., j * step : (j + 1) * step] for r in rows for j in range(method.grid)]
        first = torch.stack([c.mean((2, 3)) for c in cells], 2).view(len(first), 8, method.grid, -1)
    of_code, of_cells = method.embed[name]
    g = of_code(method.head(last))
    if name == "local":
        locations = of_cells(first).flatten(2)
    else:
        locations = of_cells(first.reshape(len(first), -1))[:, :, None]
    return getattr(plain, f"infomax_{estimator}")(*plain.location_scores(g, locations))


def prior(method, batch):
    """What the encoder gets from a copy of the discriminator, and the discriminator's own loss."""
    code = torch.sigmoid(method.head(method.backbone(batch.views[0])[1]))
    uniform = draw(2**24, 5, method.step, batch.index) / 2**24
    judge, outside = method.discriminator, deepcopy(method.discriminator)
    softplus = torch.nn.functional.softplus
    real, false = judge(uniform.double())[:, 0], judge(code.detach())[:, 0]
    apart = sum(softplus(-r) for r in real) / len(real) + sum(softplus(f) for f in false) / len(
        false
    )
    return sum(softplus(-s) for s in outside(code)[:, 0]) / len(code), apart


@pytest.mark.parametrize("estimator", ["jsd", "infonce", "dv"])
def test_loss_and_gradient_equal_the_definition(estimator):
    method, batch = dim(estimator=estimator, prior_weight=0.3, **ALL), one_view()
    name = estimator.replace("info", "")
    expected = sum(
        weight * reference(method, batch, part, name)
        for part, weight in (("local", 1.0), ("global", 0.5))
    )
    spread, apart = prior(method, batch)
    assert_same(method, batch, expected + 0.3 * spread + apart)


def test_by_default_it_is_local_and_prior_on_the_map_as_it_is():
    method, batch = dim(), one_view()
    spread, apart = prior(method, batch)
    local = reference(method, batch, "local", "jsd")
    assert_same(method, batch, local + 0.1 * spread + apart)
    assert not hasattr(dim(prior_weight=0.0), "discriminator")


def test_encoder_and_discriminator_have_gradients_apart():
    method, batch = dim(), one_view()
    code = method.head(method.backbone(batch.views[0])[1])
    spread, apart = method.match_prior(code, batch.index)
    encoder = [*method.backbone.parameters(), *method.head.parameters()]
    judge = [*method.discriminator.parameters()]

    def gradients(loss, parameters):
        return torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)

    assert all(grad is None for grad in gradients(apart, encoder))
    assert all(grad is None for grad in gradients(spread, judge))
    assert max(g.abs().max() for g in gradients(spread, encoder)) > 1e-4
    assert max(g.abs().max() for g in gradients(apart, judge)) > 1e-4


@pytest.mark.slow
def test_a_discriminator_tells_codes_that_are_not_uniform():
    """Its own step works: with the encoder frozen, codes around 0.5 are soon told apart."""
    method = dim()
    for part in (method.backbone, method.head, method.embed):
        part.requires_grad_(False)
    assert_one_step(method, one_view())
    wrapper = optimizer_for(method, lr=0.05)
    for seed in range(1, 40):
        method.train_step(one_view(size=16, seed=seed), wrapper)
    assert method.loss(one_view(size=16))["discriminator"] < 1.2  # 2 log 2 is guessing


def test_one_step_changes_everything_it_trains():
    assert_one_step(dim(**ALL), one_view())


def test_micro_batches_have_their_own_negatives():
    assert_accumulates(lambda: dim(norm=False), one_view(size=4))


def test_the_shortcut_starts_near_the_identity_and_takes_vectors():
    head = ShortcutHead(6, hidden_channels=(4,), out_channels=9)
    eye = torch.eye(9, 6)
    assert (head.shortcut.weight[:, :, 0, 0] - eye).abs().max() <= 0.01
    head.eval()
    cells = torch.randn(3, 6, 2, 2)
    assert torch.allclose(head(cells)[:, :, 1, 0], head(cells[:, :, 1, 0]), atol=1e-5)
    assert head(cells).mean(1).abs().max() < 1e-5  # LayerNorm over the channels


def test_bad_input_is_named():
    with pytest.raises(UserError, match="train_dataloader.batch_size"):
        dim().loss(one_view(size=1))
    with pytest.raises(UserError, match="DIM needs 1 view .*transform.views makes 2"):
        dim().loss(views())
    with pytest.raises(UserError, match="model.estimator is 'jds'"):
        dim(estimator="jds")
    with pytest.raises(UserError, match="model.backbone.out_indices gives 1"):
        dim(TinyBackbone())
    with pytest.raises(UserError, match="model.local_weight and model.global_weight are both 0"):
        dim(local_weight=0.0)
    with pytest.raises(UserError, match="set model.grid|needs its size"):
        dim(global_weight=1.0)


def test_the_log():
    figures = dim(**ALL).loss(one_view())
    assert_healthy_figures(figures, "local", "global", "prior", "discriminator")


@pytest.mark.slow
def test_twenty_steps_repeat_the_golden_losses():
    batches = dict(lr=0.05, batches=lambda step: one_view(seed=step % 2))
    for estimator in ("jsd", "infonce", "dv"):
        assert_golden(f"dim_{estimator}", dim(estimator=estimator, **ALL), **batches)
