"""bf16 where the device has it, full precision where it matters, and close to float32."""

import pytest
import torch

from densessl.engine import optim
from densessl.errors import UserError
from densessl.models import DenseCL, DenseHead, GlobalHead, MoCo
from densessl.precision import has_bf16
from tests.models.tiny import TinyBackbone, build, optimizer_for, views

HEADS = dict(
    DenseCL=lambda: (GlobalHead(12, (16,), 8), DenseHead(12, (16,), 8)),
    MoCo=lambda: (GlobalHead(12, (16,), 8),),
)


@pytest.mark.parametrize("has, expected", [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_exactly_where_the_hardware_has_it(monkeypatch, has, expected):
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    monkeypatch.setattr(optim, "has_bf16", lambda device: has)
    assert optim.PrecisionOptimWrapper(optimizer=sgd).precision == expected
    assert optim.PrecisionOptimWrapper("fp32", optimizer=sgd).precision == "fp32"
    with pytest.raises(UserError, match="precision is 'fp16'.\n.*'bf16'"):
        optim.PrecisionOptimWrapper("fp16", optimizer=sgd)


@pytest.mark.parametrize("avx512, amx", [(True, False), (False, True), (False, False)])
def test_a_cpu_has_bf16_with_avx512_or_amx(monkeypatch, avx512, amx):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert has_bf16("cpu") is (avx512 or amx)


@pytest.mark.parametrize("method", [MoCo, DenseCL])
def test_bf16_steps_stay_close_to_float32(method):
    losses = {}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        model = build(method, *HEADS[method.__name__](), queue_size=37).float()
        wrapper = optimizer_for(model)
        wrapper.precision = precision
        seen = []
        model.backbone.register_forward_hook(lambda m, x, y, seen=seen: seen.append(y[0].dtype))
        losses[precision] = []
        for step in range(5):
            batch = views(seed=step)
            batch = batch._replace(views=tuple(view.float() for view in batch.views))
            figures = model.train_step(batch, wrapper)
            assert all(value.dtype == torch.float32 for value in figures.values())
            losses[precision].append(figures["loss"].item())
        assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.float32}
        assert all(p.dtype == torch.float32 for p in model.parameters())
        assert model.queue.features.dtype == torch.float32
        assert torch.allclose(model.queue.features.norm(dim=1), torch.ones(37), atol=1e-5)
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)


def test_parameters_with_the_same_options_are_one_group():
    """mmengine makes a group of each parameter where one of them has options of its own."""
    model = build(MoCo, *HEADS["MoCo"](), queue_size=37)
    one_slow = dict(custom_keys=dict(head=dict(lr_mult=0.1)))
    config = dict(optimizer=dict(type="SGD", lr=1.0))
    groups = optim.TrainableParameters(config, one_slow)(model).optimizer.param_groups
    assert {group["lr"]: len(group["params"]) for group in groups} == {
        1.0: len(list(model.backbone.parameters())),
        0.1: len(list(model.head.parameters())),
    }


def test_a_clipped_step_clips_the_gradient_of_all_micro_batches():
    """Clipping happens once, on the sum."""
    model = build(MoCo, GlobalHead(12, (16,), 8), backbone=TinyBackbone(norm=False), queue_size=37)
    wrapper = optim.PrecisionOptimWrapper(
        optimizer=optimizer_for(model).optimizer,
        precision="fp32",
        accumulative_counts=3,
        clip_grad=dict(max_norm=1e-3),
    )
    norms = []
    wrapper.optimizer.register_step_pre_hook(
        lambda *_: norms.append(
            torch.stack([p.grad.norm() for p in model.parameters() if p.requires_grad]).norm()
        )
    )
    model.train_step(views(), wrapper)
    assert len(norms) == 1 and norms[0].item() == pytest.approx(1e-3, rel=1e-3)
