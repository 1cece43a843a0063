"""Every method's training step on a GPU as far as it can be seen without one: its tensors know
their device, type and shape, but have no values. Mixed devices and questions for a value raise."""

import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from densessl.benchmark.setup import build_method, build_optimizer, recipe, synthetic_batch
from densessl.engine.config import config_folder
from densessl.engine.hooks import follow_steps
from densessl.models.memory import NoiseContrast

SMALL = sorted(path.name for path in config_folder().glob("*/*_r18*_folder.py"))
CUDA = torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch):
    """The mode in which tensors may lie on a GPU that is not there."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


def on_gpu(tensor):
    moved = torch.empty_like(tensor.detach(), device=CUDA)
    trained = isinstance(tensor, nn.Parameter)
    return nn.Parameter(moved, tensor.requires_grad) if trained else moved


def moved(method):
    """``method`` with parameters and buffers on the GPU, and all else where ``to`` leaves it."""
    tensors = [*method.parameters(), *method.buffers()]
    clone = copy.deepcopy(method, {id(tensor): on_gpu(tensor) for tensor in tensors})
    clone.data_preprocessor._device = CUDA
    return clone


def without_backward(monkeypatch, method):
    """Autograd asks a real device for its streams: each parameter gets some gradient instead."""

    def backward(loss):
        assert loss.device.type == "cuda" and loss.dtype == torch.float32 and loss.requires_grad
        for parameter in method.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None

    monkeypatch.setattr(torch.Tensor, "backward", backward)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_step_stays_on_the_gpu_and_asks_it_nothing(name, monkeypatch, request):
    cfg = recipe(name, options={"train_dataloader.batch_size": 4})
    on_cpu, batch = build_method(cfg, torch.device("cpu")), synthetic_batch(cfg)
    request.getfixturevalue("gpu")
    method = moved(on_cpu)
    for part in method.modules():
        if isinstance(part, NoiseContrast):
            part._estimated = True  # Z is asked for once
    wrapper, types = build_optimizer(cfg, method), set()
    follow_steps(method, wrapper.optimizer)
    for part in method.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(lambda *call: types.add(call[-1].dtype))
    without_backward(monkeypatch, method)
    for _ in range(2):
        figures = method.train_step(batch, wrapper)
        assert all(value.device.type == "cuda" for value in figures.values())
    assert wrapper.precision == "bf16" and types == {torch.bfloat16}
    with pytest.raises(DataDependentOutputException):
        figures["loss"].item()


def test_a_tensor_left_behind_is_seen(gpu):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))
            self.scale = torch.full((3,), 2.0)

    scaled = copy.deepcopy(module := Scaled(), {id(module.weight): on_gpu(module.weight)})
    with pytest.raises(Exception, match="cuda.*cpu"):
        scaled.weight * scaled.scale
