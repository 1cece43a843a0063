from copy import deepcopy

import pytest
import torch
from torch import nn

from densessl.engine import LARS
from densessl.engine.optim import TrainableParameters


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def loss_of(model, step):
    g = torch.Generator().manual_seed(step)
    return model(torch.randn(5, 3, 4, 4, generator=g, dtype=torch.float64)).square().mean()


def test_steps_follow_the_formula():
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


def test_a_norm_of_zero_leaves_the_gradient_alone():
    weight = nn.Parameter(torch.zeros(2, 2))
    silent = nn.Parameter(torch.ones(2, 2))
    weight.grad, silent.grad = torch.ones(2, 2), torch.zeros(2, 2)
    LARS([weight, silent], lr=0.5).step()
    assert torch.equal(weight.detach(), torch.full((2, 2), -0.5))
    assert torch.equal(silent.detach(), torch.ones(2, 2))


def test_gradients_are_left_as_they_were_and_the_state_resumes():
    model = network().double()
    lars = LARS(model.parameters(), lr=0.1, weight_decay=0.1)
    loss_of(model, 0).backward()
    grads = [p.grad.clone() for p in model.parameters()]
    lars.step()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), grads, strict=True))
    twin = network(1).double()
    twin.load_state_dict(model.state_dict())
    resumed = LARS(twin.parameters(), lr=1.0)
    resumed.load_state_dict(deepcopy(lars.state_dict()))
    for one, optimizer in ((model, lars), (twin, resumed)):
        optimizer.zero_grad()
        loss_of(one, 1).backward()
        optimizer.step()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)


def test_configs_build_it():
    constructor = TrainableParameters(
        dict(type="PrecisionOptimWrapper", optimizer=dict(type="LARS", lr=0.3))
    )
    model = network()
    model[0].requires_grad_(False)
    optimizer = constructor(model).optimizer
    assert isinstance(optimizer, LARS)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_does_not_wait_for_the_device():
    model = network().cuda()
    lars = LARS(model.parameters(), lr=0.1)
    model(torch.randn(5, 3, 4, 4, device="cuda")).square().mean().backward()
    lars.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        lars.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
