"""A step of a method, and a shipped config from its transform to the optimizer."""

import io

import numpy as np
import torch
from mmengine.registry import DefaultScope
from PIL import Image
from torch.utils.data import default_collate

from densessl.engine.config import load_config
from densessl.registry import MODELS, TRANSFORMS
from densessl.structures import SampleKey, ViewBatch
from tests.models.tiny import optimizer_for


def step_of(method, batch, lr=0.1):
    """One training step; the state before and after, and the names of what moved."""
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.train_step(batch, optimizer_for(method, lr=lr))
    after = method.state_dict()
    return before, after, {n for n in after if not torch.equal(after[n], before[n])}


def assert_accumulates(make, batch):
    """A step of two micro-batches is one on the mean of their losses, each within itself."""
    method, expected = make(), make()
    method.train_step(batch, optimizer_for(method, accumulation=2))
    optimizer = optimizer_for(expected).optimizer
    sum(expected.loss(half)["loss"] / 2 for half in batch.chunk(2)).backward()
    optimizer.step()
    for (name, p), q in zip(method.named_parameters(), expected.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-12), name


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
