"""Losses of two views against slow, obvious float64 forms of their equations."""

import math

import pytest
import torch

from densessl import losses
from tests import plain

GROUP = torch.tensor([3, 0, 3, 1, 3, 0, 2])
CASES = {
    "nt_xent": [dict(temperature=0.1), dict(temperature=0.5), dict(temperature=0.5, group=GROUP)],
    "negative_cosine": [dict()],
    "batch_nce": [dict(temperature=0.2), dict(temperature=1.0), dict(temperature=0.2, group=GROUP)],
    "barlow_twins": [dict(lambd=0.0051), dict(lambd=0.3)],
    "vicreg": [dict(), dict(sim_weight=1, var_weight=2, cov_weight=3)],
    "batch_hard_triplet": [dict(margin=0.3), dict(margin=0.1), dict(margin=0.3, group=GROUP)],
}


def pair(rows=7, channels=5, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    first = torch.randn(rows, channels, generator=g, dtype=dtype)
    second = 0.7 * first + 0.4 * torch.randn(rows, channels, generator=g, dtype=dtype)
    return first.requires_grad_(), second.requires_grad_()


@pytest.mark.parametrize("name,options", [(n, o) for n, many in CASES.items() for o in many])
def test_value_and_gradient_equal_the_plain_form(name, options):
    z = pair()
    expected = getattr(plain, name)(*z, **options)
    loss = getattr(losses, name)(*z, **options)
    assert abs(loss.item() - expected.item()) < 1e-10
    grads, references = torch.autograd.grad(loss, z), torch.autograd.grad(expected, z)
    for grad, reference in zip(grads, references, strict=True):
        assert (grad - reference).abs().max() < 1e-10


@pytest.mark.parametrize("name", CASES)
def test_autocast_does_not_lower_the_precision(name):
    z1, z2 = pair(dtype=torch.float32)
    options, loss = CASES[name][0], getattr(losses, name)
    alone = loss(z1, z2, **options)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(z1, z2, **options).item() == alone.item()
        assert loss(z1.bfloat16(), z2.bfloat16(), **options).dtype == torch.float32


@pytest.mark.parametrize("name", CASES)
def test_tensors_go_by_name_too(name):
    z, names = pair(), dict(negative_cosine=("p", "z"), batch_nce=("query", "keys"))
    named = dict(zip(names.get(name, ("z1", "z2")), z, strict=True))
    loss = getattr(losses, name)
    assert loss(**named, **CASES[name][0]).item() == loss(*z, **CASES[name][0]).item()


@pytest.mark.parametrize("name", [name for name in CASES if name != "batch_nce"])
def test_tensors_that_are_no_pair_are_refused(name):
    (z1, z2), loss = pair(), getattr(losses, name)
    few = 0 if name in ("nt_xent", "negative_cosine") else 1
    for one, other in ((z1, z2[:, :3]), (z1, z2[:1]), (z1[:few], z2[:few]), (z1[0], z2[0])):
        with pytest.raises(ValueError, match="two tensors \\(N, C\\)"):
            loss(one, other, **CASES[name][0])


@pytest.mark.parametrize("temperature", [0, -0.2])
def test_a_temperature_is_above_0(temperature):
    z1, z2 = pair()
    for loss in (losses.nt_xent, losses.batch_nce):
        with pytest.raises(ValueError, match="temperature is"):
            loss(z1, z2, temperature)
    with pytest.raises(ValueError, match="temperature is"):
        losses.info_nce(z1, z2, z2.detach(), temperature)


def test_queries_may_be_a_part_of_the_batch():
    query, keys = pair()
    for group in (None, GROUP):
        parts = [losses.batch_nce(query[i : i + 1], keys, 0.2, i, group) for i in range(7)]
        whole = losses.batch_nce(query, keys, 0.2, group=group)
        assert sum(parts).item() / 7 == pytest.approx(whole.item(), abs=1e-12)


def test_closed_forms():
    same = torch.ones(6, 4, dtype=torch.float64)
    assert losses.nt_xent(same, same, 0.1).item() == pytest.approx(math.log(11), abs=1e-12)
    assert losses.batch_nce(same, same, 0.1).item() == pytest.approx(math.log(6), abs=1e-12)
    assert losses.negative_cosine(same, -2 * same).item() == pytest.approx(1, abs=1e-12)
    assert losses.batch_hard_triplet(same, same, 0.3).item() == pytest.approx(0.3, abs=1e-12)
    # Orthogonal channels of variance one: nothing is left but the eps of each loss.
    signs = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    assert losses.barlow_twins(signs, signs).item() < 1e-9
    assert losses.barlow_twins(signs, -signs).item() == pytest.approx(8, abs=1e-3)
    assert losses.vicreg(2 * signs, 2 * signs).item() == 0
    assert losses.vicreg(same, same).item() == pytest.approx(25 * 0.99, abs=1e-9)


def test_triplet_and_a_gradient_where_views_coincide():
    a, p, n = pair()[0], pair(seed=1)[0], pair(seed=2)[0]
    for margin in (0.3, 2.0):
        expected = plain.triplet(a, p, n, margin)
        assert abs(losses.triplet(a, p, n, margin).item() - expected.item()) < 1e-10
    z = pair()[0]
    losses.batch_hard_triplet(z, z, 2.0).backward()
    assert z.grad.isfinite().all() and z.grad.abs().max() > 0


def test_lightly_agrees():
    lightly = pytest.importorskip("lightly.loss")
    z1, z2 = pair(rows=9)
    for ours, theirs in [
        (losses.nt_xent(z1, z2, 0.3), lightly.NTXentLoss(temperature=0.3)(z1, z2)),
        (losses.negative_cosine(z1, z2), lightly.NegativeCosineSimilarity()(z1, z2)),
        (losses.barlow_twins(z1, z2, 0.02), lightly.BarlowTwinsLoss(lambda_param=0.02)(z1, z2)),
        (losses.vicreg(z1, z2), lightly.VICRegLoss()(z1, z2)),
    ]:
        assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
