"""Nothing in a training step waits for the device, and the log is the same as if it did."""

import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from torch.utils._python_dispatch import TorchDispatchMode

from densessl.engine import LARS, pretrain
from densessl.engine.gradients import GradientNormHook, gradient_norms
from densessl.engine.message_hub import DeferredMessageHub
from densessl.engine.optim import PrecisionOptimWrapper, TrainableParameters
from densessl.models import BYOL, DenseCL, DenseHead, GlobalHead, MoCo, SimCLR, TimmBackbone
from tests.models.checks import HEAD, PREDICTOR
from tests.models.tiny import build, views
from tests.training import write_config

# What a tensor's value or a shape that depends on it is asked through.
QUESTIONS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")


class Questions(TorchDispatchMode):
    """Collects operations for whose answer a GPU would have to be waited for."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(name in function.name() for name in QUESTIONS):
            self.asked.append(function.name())
        return function(*args, **(kwargs or {}))


def methods():
    queue = dict(queue_size=37)
    yield build(MoCo, GlobalHead(12, (16,), 8), **queue)
    yield build(DenseCL, GlobalHead(12, (16,), 8), DenseHead(12, (16,), 8), **queue)
    yield build(BYOL, HEAD, PREDICTOR)
    yield build(SimCLR, HEAD)


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "LARS", "LAMB"])
@pytest.mark.parametrize("number", range(4))
def test_no_step_asks_the_device_anything(optimizer, number, monkeypatch):
    def copied(*_, **__):
        raise AssertionError("a number made into a tensor is copied, and the copy waited for")

    monkeypatch.setattr(torch.Tensor, "new_tensor", copied)
    method = list(methods())[number]
    options = dict(optimizer=dict(type=optimizer, lr=0.1), clip_grad=dict(max_norm=1.0))
    wrapper = TrainableParameters(dict(type="PrecisionOptimWrapper", **options))(method)
    wrapper.message_hub = DeferredMessageHub("no sync")
    wrapper.optimizer.register_step_post_hook(lambda *_: method.after_optimizer_step())
    for _ in range(2):
        batch = views()
        with Questions() as questions, monkeypatch.context() as during:
            during.setattr(torch, "tensor", copied)
            figures = method.train_step(batch, wrapper)
            for name, value in figures.items():
                wrapper.message_hub.update_scalar(name, value)
        assert not questions.asked
    with Questions() as questions:
        figures["loss"].item()
    assert questions.asked  # the test can see it


def test_optimizers_are_fused_where_that_exists():
    method = next(methods())

    def built(**options):
        return TrainableParameters(dict(optimizer=dict(lr=0.1, **options)))(method).optimizer

    assert built(type="SGD").defaults["fused"] and built(type="AdamW").defaults["fused"]
    assert not built(type="SGD", fused=False).defaults["fused"]
    assert built(type="SGD", foreach=True).defaults["foreach"]
    assert isinstance(built(type="LARS"), LARS)
    assert not built(type="Adagrad").defaults["fused"]  # its fused form is for CPUs alone


def test_histories_are_those_of_mmengine():
    ours, theirs = DeferredMessageHub("ours"), MessageHub("theirs")
    torch.manual_seed(0)
    for step in range(25):
        for hub in (ours, theirs):
            generator = torch.Generator().manual_seed(step)
            hub.update_scalar("loss", torch.randn((), generator=generator, requires_grad=True))
            hub.update_scalar("double", torch.randn(1, generator=generator, dtype=torch.float64))
            hub.update_scalar("time", step / 3, count=2)
        assert ours.get_scalar("time").current() == step / 3
        if step == 10:
            assert ours.get_scalar("loss").current() == theirs.get_scalar("loss").current()
    assert list(ours.log_scalars) == list(theirs.log_scalars)
    for name, history in theirs.log_scalars.items():
        for one, other in zip(history.data, ours.log_scalars[name].data, strict=True):
            assert one.tolist() == other.tolist()


def test_reading_a_number_leaves_the_tensors_alone_and_saving_does_not():
    hub = DeferredMessageHub("hub")
    hub.update_scalar("loss", torch.tensor(2.0))
    hub.update_scalar("time", 1.0)
    with Questions():
        assert hub.get_scalar("time").current() == 1.0 and len(hub._pending) == 1
    assert hub.state_dict()["log_scalars"]["loss"].current() == 2.0
    assert not hub._pending
    with pytest.raises(KeyError):
        hub.get_scalar("unknown")


def logged(work_dir) -> list[dict]:
    (file,) = work_dir.glob("*/vis_data/scalars.json")
    clocks = {"time", "data_time", "images_per_s", "data_wait"}
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [{key: line[key] for key in line.keys() - clocks} for line in lines]


@pytest.mark.slow
def test_the_log_of_a_run_is_that_of_asking_at_every_step(tmp_path, images, monkeypatch):
    options = {
        "default_hooks.logger.interval": 3,
        "log_processor.window_size": 3,
        "precision": "fp32",
        "optim_wrapper.clip_grad": dict(max_norm=5.0),
        "custom_hooks": [dict(type="GradientNormHook", interval=2)],
    }
    reads = []
    fetch = DeferredMessageHub.fetch
    monkeypatch.setattr(
        DeferredMessageHub, "fetch", lambda hub: reads.append(bool(hub._pending)) or fetch(hub)
    )
    config = write_config(tmp_path / "config.py", images)
    pretrain(config, work_dir=tmp_path / "ours", **options)
    assert sum(reads) == 2 * 3  # twice in an epoch of eight steps, and at its end
    update = DeferredMessageHub.update_scalar

    def update_at_once(hub, *args, **options):
        update(hub, *args, **options)
        fetch(hub)

    monkeypatch.setattr(DeferredMessageHub, "update_scalar", update_at_once)
    pretrain(write_config(tmp_path / "again.py", images), work_dir=tmp_path / "theirs", **options)
    ours, theirs = logged(tmp_path / "ours"), logged(tmp_path / "theirs")
    assert len(ours) == 4 and "grad_norm" in ours[0] and "grad/layers.0" in ours[0]
    assert ours == theirs


def test_the_norm_of_a_layer_is_that_of_all_its_gradients():
    torch.manual_seed(0)
    backbone = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    backbone(torch.randn(5, 3)).square().sum().backward()
    norms = gradient_norms(backbone)
    assert list(norms) == ["0", "2"]
    for name, norm in norms.items():
        grads = [p.grad.flatten() for p in backbone[int(name)].parameters()]
        torch.testing.assert_close(norm, torch.cat(grads).norm())


def test_the_norm_that_is_logged_is_that_before_clipping():
    method = next(methods())
    sgd = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    wrapper = PrecisionOptimWrapper("fp32", optimizer=sgd, clip_grad=dict(max_norm=1e-4))
    wrapper.message_hub = DeferredMessageHub("norms")
    (method.loss(views())["loss"]).backward()
    grads = [p.grad.clone() for p in method.parameters() if p.grad is not None]
    wrapper._clip_grad()
    expected = torch.cat([grad.flatten() for grad in grads]).norm().item()
    assert wrapper.message_hub.get_scalar("train/grad_norm").current() == pytest.approx(expected)


def test_norms_of_layers_are_those_before_clipping_and_apart_from_the_whole():
    vit = TimmBackbone("vit_tiny_patch16_224", img_size=28, patch_size=14, depth=4, embed_dim=12)
    method, batch = build(SimCLR, HEAD, backbone=vit), views()
    method.loss(batch)["loss"].backward()
    expected = {name: norm.item() for name, norm in gradient_norms(vit).items()}
    method.zero_grad()
    hub, sgd = DeferredMessageHub("layers"), torch.optim.SGD(method.parameters(), lr=0.1)
    wrapper = PrecisionOptimWrapper("fp32", optimizer=sgd, clip_grad=dict(max_norm=1e-4))
    wrapper.message_hub = hub
    runner = SimpleNamespace(model=method, optim_wrapper=wrapper, message_hub=hub)
    hook = GradientNormHook(interval=1)
    hook.before_train(runner)
    method.train_step(batch, wrapper)
    hook.after_train_iter(runner, 0)
    for name, norm in expected.items():
        assert hub.get_scalar(f"train/grad/{name}").current() == pytest.approx(norm)
    assert "norm" in expected and len(hub.get_scalar("train/grad_norm")._log_history) == 1
    hook.after_train(runner)
    assert not wrapper.observers
