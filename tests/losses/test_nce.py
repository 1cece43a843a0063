"""The losses against a bank, each against its equation row by row in float64."""

import math

import pytest
import torch

from densessl.losses import instance_softmax, nce, nce_partition, pirl_nce

TAU, N, M, IMAGES = 0.07, 5, 6, 40


def unit_rows(*shape):
    return torch.nn.functional.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


@pytest.fixture
def drawn():
    torch.manual_seed(0)
    return unit_rows(N, 8).requires_grad_(), unit_rows(IMAGES, 8), torch.randint(IMAGES, (N, M))


def same(ours, expected, f):
    gradients = [torch.autograd.grad(x, f)[0] for x in (ours, expected)]
    assert abs(ours - expected) < 1e-10 and (gradients[0] - gradients[1]).abs().max() < 1e-9


def test_nce_equals_its_definition(drawn):
    f, bank, places = drawn
    log_z = torch.tensor(5.0, dtype=torch.float64)

    def h(v, f):
        p = torch.exp(v @ f / TAU) / math.exp(5.0)
        return p / (p + M * (1 / IMAGES))

    expected = 0
    for i in range(N):
        noise = sum(torch.log(1 - h(bank[j], f[i])) for j in places[i])
        expected = expected - torch.log(h(bank[i], f[i])) - noise
    same(nce(f, bank[:N], bank[places], log_z, IMAGES, TAU), expected / N, f)


def test_z_is_n_times_the_mean_of_the_drawn_exponentials(drawn):
    f, bank, places = drawn
    terms = [torch.exp(bank[j] @ f[i] / TAU) for i in range(N) for j in places[i]]
    expected = IMAGES * sum(terms) / len(terms)
    assert torch.isclose(nce_partition(f, bank[places], IMAGES, TAU), expected, rtol=1e-12)
    # With every entry drawn once it is the exact sum.
    exact = torch.exp(bank @ f.T / TAU).sum(0).mean()
    every = bank.expand(N, -1, -1)
    assert torch.isclose(nce_partition(f, every, IMAGES, TAU), exact, rtol=1e-12)


def test_full_softmax_equals_its_definition(drawn):
    f, bank, _ = drawn
    index = torch.tensor([3, 0, 7, 39, 12])
    expected = 0
    for i in range(N):
        total = sum(torch.exp(v @ f[i] / TAU) for v in bank)
        expected = expected - torch.log(torch.exp(bank[index[i]] @ f[i] / TAU) / total)
    same(instance_softmax(f, bank, index, TAU), expected / N, f)


def test_pirl_nce_equals_its_definition_and_leaves_the_own_image_out(drawn):
    f, bank, places = drawn
    negatives = places[0].tolist() + [1, 2]
    own = torch.tensor([[j == i for j in negatives] for i in range(N)])
    assert own.any()
    expected = 0
    for i in range(N):
        others = [bank[j] for j in negatives if j != i]
        total = sum(torch.exp(f[i] @ v / TAU) for v in others)

        def h(v, f=f[i], total=total):
            return torch.exp(f @ v / TAU) / (torch.exp(f @ v / TAU) + total)

        expected = expected - torch.log(h(bank[i])) - sum(torch.log(1 - h(v)) for v in others)
    same(pirl_nce(f, bank[:N], bank[negatives], own, TAU), expected / N, f)


def test_they_stay_finite_and_exact_for_sharp_logits():
    f = torch.eye(4, 8).requires_grad_()
    far = -torch.eye(4, 8)
    loss = nce(f, f.detach(), far[:, None], torch.tensor(2.0), 100, 0.01)
    loss.backward()
    assert loss.isfinite() and f.grad.isfinite().all()
    loss = pirl_nce(f, f.detach(), far, torch.eye(4, dtype=torch.bool), 0.001)
    assert loss.isfinite() and torch.autograd.grad(loss, f)[0].isfinite().all()
