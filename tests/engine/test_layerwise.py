import io

import pytest
import torch
from torch import nn

from densessl.engine import LAMB, LARS
from densessl.engine.optim import TrainableParameters

BOTH = pytest.mark.parametrize("kind", [LARS, LAMB])


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def loss_of(model, step):
    g = torch.Generator().manual_seed(step)
    return model(torch.randn(5, 3, 4, 4, generator=g, dtype=torch.float64)).square().mean()


def test_lars_follows_its_formula():
    model, reference = network().double(), network().double()
    options = dict(lr=0.7, momentum=0.9, weight_decay=0.1)
    lars = LARS(model.parameters(), **options, trust_coefficient=0.02, vector_lr_mult=0.3)
    momenta = [torch.zeros_like(p) for p in reference.parameters()]
    for step in range(4):
        lars.zero_grad()
        loss_of(model, step).backward()
        lars.step()
        parameters = list(reference.parameters())
        grads = torch.autograd.grad(loss_of(reference, step), parameters)
        with torch.no_grad():
            for p, g, momentum in zip(parameters, grads, momenta, strict=True):
                lr = 0.7
                if p.ndim > 1:
                    g = g + 0.1 * p
                    g = 0.02 * p.norm() / g.norm() * g
                else:
                    lr = 0.7 * 0.3
                momentum.mul_(0.9).add_(g)
                p.sub_(lr * momentum)
    for p, expected in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(p, expected, atol=1e-12)


def test_lamb_follows_its_algorithm():
    model, reference = network().double(), network().double()
    lamb = LAMB(model.parameters(), lr=0.02, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1)
    moments = [[torch.zeros_like(p), torch.zeros_like(p)] for p in reference.parameters()]
    for step in range(1, 5):
        lamb.zero_grad()
        loss_of(model, step).backward()
        lamb.step()
        parameters = list(reference.parameters())
        grads = torch.autograd.grad(loss_of(reference, step), parameters)
        with torch.no_grad():
            for p, g, moment in zip(parameters, grads, moments, strict=True):
                moment[0] = 0.8 * moment[0] + 0.2 * g
                moment[1] = 0.95 * moment[1] + 0.05 * g**2
                m, v = moment[0] / (1 - 0.8**step), moment[1] / (1 - 0.95**step)
                update = m / (v.sqrt() + 1e-3)
                if p.ndim > 1:
                    update = update + 0.1 * p
                    update = p.norm() / update.norm() * update
                p.sub_(0.02 * update)
    for p, expected in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(p, expected, atol=1e-12)


def test_lamb_counts_the_steps_of_each_parameter():
    """A parameter whose first gradient comes late starts its bias correction then."""
    early, late = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    lamb = LAMB([early, late], lr=0.5, eps=0.0)
    for grads in ((torch.ones(2), None), (torch.ones(2), torch.ones(2))):
        early.grad, late.grad = grads
        lamb.step()
    # Adam's step on a constant gradient is the learning rate.
    assert torch.allclose(early, torch.zeros(2), atol=1e-6)
    assert torch.allclose(late, torch.full((2,), 0.5), atol=1e-6)


@BOTH
def test_a_norm_of_zero_leaves_the_update_alone(kind):
    weight = nn.Parameter(torch.zeros(2, 2))
    silent = nn.Parameter(torch.ones(2, 2))
    weight.grad, silent.grad = torch.ones(2, 2), torch.zeros(2, 2)
    kind([weight, silent], lr=0.5).step()
    assert torch.allclose(weight.detach(), torch.full((2, 2), -0.5))
    assert torch.equal(silent.detach(), torch.ones(2, 2))


@BOTH
def test_the_decay_of_weights_without_gradient_is_not_scaled_up(kind):
    """In the warm-up of a dense branch its weights' gradients are 0: they only decay."""
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = kind([weight], lr=0.5, weight_decay=1e-3)
    weight.grad = torch.zeros(2, 2)
    optimizer.step()
    assert torch.allclose(weight.detach(), torch.full((2, 2), 1 - 0.5e-3), rtol=1e-6)


@BOTH
def test_gradients_are_left_as_they_were_and_the_state_resumes(kind):
    model = network().double()
    optimizer = kind(model.parameters(), lr=0.1, weight_decay=0.1)
    loss_of(model, 0).backward()
    grads = [p.grad.clone() for p in model.parameters()]
    optimizer.step()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), grads, strict=True))
    twin = network(1).double()
    twin.load_state_dict(model.state_dict())
    resumed = kind(twin.parameters(), lr=1.0)
    saved = io.BytesIO()
    torch.save(optimizer.state_dict(), saved)
    saved.seek(0)
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    for one, stepping in ((model, optimizer), (twin, resumed)):
        stepping.zero_grad()
        loss_of(one, 1).backward()
        stepping.step()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)


@BOTH
def test_configs_build_it(kind):
    constructor = TrainableParameters(
        dict(type="PrecisionOptimWrapper", optimizer=dict(type=kind.__name__, lr=0.3))
    )
    model = network()
    model[0].requires_grad_(False)
    optimizer = constructor(model).optimizer
    assert isinstance(optimizer, kind)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


@BOTH
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_does_not_wait_for_the_device(kind):
    model = network().cuda()
    optimizer = kind(model.parameters(), lr=0.1)
    model(torch.randn(5, 3, 4, 4, device="cuda")).square().mean().backward()
    optimizer.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
