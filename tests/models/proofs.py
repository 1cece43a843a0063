"""Checks that every method passes: its definition, its step, its golden losses."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from PIL import Image
from torch.utils.data import default_collate

from densessl.engine.config import load_config
from densessl.registry import MODELS, TRANSFORMS
from densessl.structures import SampleKey, ViewBatch
from tests.models.tiny import optimizer_for

GOLDEN = Path(__file__).parent / "golden"
STEPS = 20


def assert_equal_with_gradient(method, ours, reference, tolerance=1e-6):
    """Both scalars are the same, and so are their gradients to every parameter."""
    parameters = [p for p in method.parameters() if p.requires_grad]
    assert abs(ours.item() - reference.item()) < tolerance
    names = [name for name, p in method.named_parameters() if p.requires_grad]
    gradients = [
        torch.autograd.grad(scalar, parameters, retain_graph=True, allow_unused=True)
        for scalar in (ours, reference)
    ]
    moved = 0
    for name, own, expected in zip(names, *gradients, strict=True):
        assert (own is None) == (expected is None), name
        if own is not None:
            assert (own - expected).abs().max() < tolerance, name
            moved += bool(expected.abs().max() > 1e-4)
    assert moved > len(names) / 2, "a gradient that is zero proves nothing"


def step_of(method, batch, lr=0.1):
    """One training step; the state before and after, and the names of what moved."""
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.train_step(batch, optimizer_for(method, lr=lr))
    after = method.state_dict()
    return before, after, {n for n in after if not torch.equal(after[n], before[n])}


def assert_golden(name, method, batches):
    """Twenty steps repeat the stored losses.

    A change of these numbers is a change of the method: say why, delete the file and run again.
    """
    method.total_steps = STEPS
    wrapper = optimizer_for(method, lr=0.05)
    losses = [method.train_step(batches(step), wrapper)["loss"].item() for step in range(STEPS)]
    path = GOLDEN / f"{name}.json"
    if not path.exists():
        path.write_text(json.dumps(losses, indent=1) + "\n")
        pytest.fail(f"{path.name} was missing and has been written: look at it, then run again")
    assert losses == pytest.approx(json.loads(path.read_text()), abs=1e-6)


def method_from_config(path, num_images=64, **model_options):
    """The method and the transform of a shipped config, on a small backbone and small views."""
    cfg = load_config(path)
    cfg.train_dataloader.dataset.transform.size = 64
    cfg.model.backbone.depth = 18
    cfg.model.update(model_options)
    kind = MODELS.get(cfg.model.type)
    with DefaultScope.overwrite_default_scope("densessl"):
        transform = TRANSFORMS.build(cfg.train_dataloader.dataset.transform)
        return MODELS.build(kind.resolve(cfg.model, num_images)).train(), transform


def samples(transform, size=4):
    """A batch of noise images, as a loader makes it."""
    made = []
    for index in range(size):
        data = io.BytesIO()
        pixels = np.random.default_rng(index).integers(0, 256, (90, 120, 3), np.uint8)
        Image.fromarray(pixels).save(data, "PNG")
        views, records = transform(data.getvalue(), SampleKey(0, 0, index))
        made.append(ViewBatch(views, records, torch.tensor(index), torch.tensor(-1)))
    return default_collate(made)


def assert_config_trains(path, **model_options):
    """A shipped config builds, and two steps on what its transform makes give finite figures."""
    method, transform = method_from_config(path, **model_options)
    wrapper = optimizer_for(method, lr=0.01)
    for _ in range(2):
        figures = method.train_step(samples(transform), wrapper)
        assert all(value.isfinite() for value in figures.values()), figures
    return method
