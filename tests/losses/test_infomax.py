"""The losses of images against locations, term by term in float64."""

import math

import pytest
import torch

from densessl import losses
from tests import plain

ESTIMATORS = dict(jsd="jsd", donsker_varadhan="dv", location_nce="nce")


def drawn(images=3, everyone=5, channels=6, locations=4, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    g = torch.randn(images, channels, generator=generator, dtype=dtype)
    cells = torch.randn(everyone, channels, locations, generator=generator, dtype=dtype)
    return g.requires_grad_(), cells.requires_grad_()


def same(ours, expected, inputs):
    assert abs(ours.item() - expected.item()) < 1e-10
    grads, references = torch.autograd.grad(ours, inputs), torch.autograd.grad(expected, inputs)
    for grad, reference in zip(grads, references, strict=True):
        assert (grad - reference).abs().max() < 1e-10


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_equal_their_definitions(name, first):
    inputs = drawn()
    expected = getattr(plain, f"infomax_{ESTIMATORS[name]}")
    ours = getattr(losses, name)(*losses.location_scores(*inputs, first))
    same(ours, expected(*plain.location_scores(*inputs, first)), inputs)


@pytest.mark.parametrize("options", [dict(), dict(first=2, penalty=0.3, clip=1.5)])
def test_amdim_equals_its_definition(options):
    inputs = drawn()
    ours = losses.amdim_nce(*inputs, **options)
    same(ours, plain.amdim_nce(*inputs, **options), inputs)


def test_closed_forms():
    own, others = torch.zeros(3, 4), torch.zeros(3, 4, 4)
    assert losses.jsd(own, others).item() == pytest.approx(2 * math.log(2))
    assert losses.donsker_varadhan(own, others).item() == pytest.approx(0)
    assert losses.location_nce(own, others).item() == pytest.approx(math.log(1 + 4 * 4))
    # The clip bounds the loss, and the penalty sees what was clipped.
    far = 1000 * torch.ones(2, 4), -1000 * torch.eye(4).expand(2, 4, 4)
    assert losses.amdim_nce(*far).isfinite()
    assert losses.amdim_nce(*far) > losses.amdim_nce(*far, penalty=0.0) + 100


def test_they_stay_finite_and_exact_for_large_scores():
    for name in ESTIMATORS:
        scores = torch.full((2, 3), -300.0, requires_grad=True), torch.full((2, 5, 3), 300.0)
        loss = getattr(losses, name)(*scores)
        loss.backward()
        assert loss.item() == pytest.approx(600, abs=3) and scores[0].grad.isfinite().all()


def test_autocast_does_not_lower_the_precision():
    g, cells = drawn(dtype=torch.float32)
    alone = losses.amdim_nce(g, cells)
    with torch.autocast("cpu", torch.bfloat16):
        assert losses.amdim_nce(g, cells).item() == alone.item()
        own, _ = losses.location_scores(g.bfloat16(), cells.bfloat16())
    assert own.dtype == torch.float32
