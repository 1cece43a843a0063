"""What the test of every method asks of it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from densessl.errors import UserError
from densessl.models import Method
from densessl.structures import ViewBatch
from tests.models.tiny import optimizer_for, views

GOLDEN = Path(__file__).parent / "golden"
HEAD = dict(type="GlobalHead", hidden_channels=(16,), out_channels=10, norm=True)
PREDICTOR = dict(type="GlobalHead", hidden_channels=(12,), out_channels=10, norm=True)
# Without BatchNorm, where it must not matter how a batch is divided.
PLAIN_HEAD, PLAIN_PREDICTOR = dict(HEAD, norm=False), dict(PREDICTOR, norm=False)


def assert_same(method: Method, batch: ViewBatch, expected: Tensor) -> None:
    """The method's loss and all its gradients are those of ``expected``, to 1e-6."""
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    loss = method.loss(batch)["loss"]
    assert abs(loss.item() - expected.item()) < 1e-6
    grads = torch.autograd.grad(loss, trained.values())
    references = torch.autograd.grad(expected, trained.values())
    for name, grad, reference in zip(trained, grads, references, strict=True):
        assert (grad - reference).abs().max() < 1e-6, name
    assert max(grad.abs().max() for grad in grads) > 1e-4


def assert_one_step(method: Method, batch: ViewBatch, momentum: float = 0.0) -> dict[str, Tensor]:
    """One step moves student and teacher as it should, and no other parameter; a pass in eval mode
    before it moves nothing.

    Args:
        method: Any.
        batch: Any.
        momentum: Of the teacher at this step.

    Returns:
        Changes of the state by name; unchanged entries are left out.
    """
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.eval()
    with torch.no_grad():
        method.loss(batch)
    torch.testing.assert_close(method.state_dict(), before, rtol=0, atol=0, equal_nan=True)
    method.train()
    parameters, grads, wrapper = dict(method.named_parameters()), {}, optimizer_for(method)
    wrapper.optimizer.register_step_pre_hook(
        lambda *_: grads.update((name, p.grad) for name, p in parameters.items())
    )
    assert method.train_step(batch, wrapper)["loss"].isfinite()
    after = method.state_dict()
    for name, parameter in parameters.items():
        moved = not torch.equal(before[name], after[name])
        if name.startswith("teacher."):
            student = after[name.removeprefix("teacher.")]
            expected = momentum * before[name] + (1 - momentum) * student
            assert torch.allclose(parameter, expected, atol=1e-12), name
            assert grads[name] is None
        elif parameter.requires_grad:
            # A bias that a BatchNorm takes away later has nothing but rounding as gradient.
            assert moved or grads[name].abs().max() < 1e-12, f"{name} did not move"
        else:
            assert not moved, name
    return {
        name: after[name] - value
        for name, value in before.items()
        if name not in parameters and not torch.equal(value, after[name])
    }


def assert_accumulates(make: Callable[[], Method], batch: ViewBatch) -> None:
    """A step of two micro-batches is one on the mean of their losses, each within itself."""
    method, expected = make(), make()
    logged = method.train_step(batch, optimizer_for(method, accumulation=2))
    optimizer = optimizer_for(expected).optimizer
    loss = sum(expected.loss(half)["loss"] / 2 for half in batch.chunk(2))
    loss.backward()
    optimizer.step()
    assert logged["loss"].item() == pytest.approx(loss.item(), abs=1e-12)
    for (name, p), q in zip(method.named_parameters(), expected.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-12), name


def assert_golden(
    name: str,
    method: Method,
    lr: float = 0.01,
    batches: Callable[[int], ViewBatch] = lambda step: views(size=8, seed=step),
) -> None:
    """Twenty steps give the stored losses.

    A change of these numbers is a change of the method: say why, then store the new ones.
    """
    method.total_steps = 20
    wrapper = optimizer_for(method, lr=lr)
    losses = [method.train_step(batches(step), wrapper)["loss"].item() for step in range(20)]
    stored = json.loads((GOLDEN / f"{name}.json").read_text())
    assert losses == pytest.approx(stored, abs=1e-6)


def assert_wants_two_views(method: Method) -> None:
    """One view, three views, and where negatives are in the batch one image, are refused."""
    for count in (1, 3):
        with pytest.raises(UserError, match="train_dataloader.dataset.transform.views"):
            method.loss(views(count=count))
    if method.smallest_batch > 1:
        with pytest.raises(UserError, match="train_dataloader.batch_size"):
            method.loss(views(size=1))


def assert_healthy_figures(figures: dict[str, Tensor], *names: str) -> None:
    """The log has the figures of ``health`` and ``names``, all finite."""
    for name in ("embedding_std", "alignment", "uniformity", *names):
        assert figures[name].isfinite() and not figures[name].requires_grad, name
