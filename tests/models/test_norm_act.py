"""BatchNorm, residual sum and ReLU in one pass, against float64 and against PyTorch's own."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from densessl.models import ResNet
from densessl.models.backbones import norm_act as module
from densessl.models.backbones.norm_act import LIBRARY, library, norm_act
from densessl.precision import has_bf16

hooked = nn.BatchNorm2d(8)
hooked.register_forward_hook(lambda *_: None)
ROUNDING = 2**-8  # of bf16, relative
one_pass = pytest.mark.skipif(library() is None, reason="needs a CPU with bf16, and a compiler")


def maps(*shape: int, mean: float = 0.0) -> Tensor:
    x = (torch.randn(shape) + mean).bfloat16()
    return x.to(memory_format=torch.channels_last).requires_grad_()


def norm_of(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    nn.init.normal_(norm.weight, 1, 0.3)
    nn.init.normal_(norm.bias)
    return norm


def plain(norm: nn.Module, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    y = norm(x)
    y = y if residual is None else y + residual
    return F.relu(y) if relu else y


@pytest.fixture
def calls(monkeypatch):
    """How often the kernel ran."""
    seen = []
    train = module._train
    monkeypatch.setattr(module, "_train", lambda *args: seen.append(args) or train(*args))
    return seen


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs GCC")
@pytest.mark.skipif(not has_bf16("cpu"), reason="the CPU has no bf16")
def test_setup_builds_what_is_loaded(tmp_path):
    command = [sys.executable, "setup.py", "-q", "build_ext"]
    folders = ["--build-lib", str(tmp_path), "--build-temp", str(tmp_path / "objects")]
    root = Path(__file__).parents[2]
    subprocess.run(command + folders, cwd=root, check=True, env=os.environ | {"CC": "gcc"})
    (built,) = tmp_path.rglob(LIBRARY.name)
    assert built.relative_to(tmp_path) == LIBRARY.relative_to(root)
    assert ctypes.CDLL(str(built)).normalize


def test_a_missing_kernel_is_told_once_where_it_would_work(monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr(module, "print_log", lambda text, *args: said.append(text))
    monkeypatch.setattr(module, "LIBRARY", tmp_path / "none.so")
    for has in (False, True):
        monkeypatch.setattr(module, "has_bf16", lambda device, has=has: has)
        library.cache_clear()
        assert library() is None
        assert library() is None and len(said) == has
    library.cache_clear()


@one_pass
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (4, 64, 9, 7), (3, 37, 5, 5), (2, 160, 30, 31)])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_values_gradients_and_statistics_are_those_of_float64(
    calls, shape, residual, relu, threads
):
    torch.manual_seed(0)
    x, added = maps(*shape, mean=3), maps(*shape) if residual else None
    norm = norm_of(shape[1])
    exact = norm_of(shape[1]).double()
    exact.load_state_dict(norm.state_dict())
    dy = torch.randn(shape).bfloat16()  # of another memory format

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y = norm_act(norm, x, added, relu)
        y.backward(dy)
    finally:
        torch.set_num_threads(before)

    x64, added64 = (None if each is None else each.detach().double() for each in (x, added))
    leaves = [each.requires_grad_() for each in (x64, added64) if each is not None]
    expected = plain(exact, x64, added64, relu=False)
    mask = y.double() > 0 if relu else torch.ones_like(expected)  # as the rounded output has it
    torch.autograd.backward(expected, dy.double() * mask, inputs=leaves + [*exact.parameters()])
    expected = expected.clamp(min=0) if relu else expected
    assert len(calls) == 1
    assert y.dtype == x.grad.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y.double(), expected.detach(), rtol=ROUNDING, atol=1e-5)
    torch.testing.assert_close(x.grad.double(), x64.grad, rtol=ROUNDING, atol=1e-5)
    if residual:
        assert torch.equal(added.grad.double(), added64.grad)
    for name in ("weight", "bias"):
        torch.testing.assert_close(
            getattr(norm, name).grad.double(), getattr(exact, name).grad, rtol=1e-5, atol=1e-4
        )
    for name, value in exact.named_buffers():
        torch.testing.assert_close(norm.get_buffer(name).to(value), value, rtol=1e-6, atol=1e-6)


@one_pass
def test_a_mean_far_from_zero_costs_no_digits():
    x = maps(8, 4, 40, 40, mean=1000)
    norm = nn.BatchNorm2d(4, momentum=1)
    norm_act(norm, x, relu=False)
    expected = x.detach().double().var((0, 2, 3))
    torch.testing.assert_close(norm.running_var.double(), expected, rtol=1e-5, atol=0)


@one_pass
def test_two_runs_are_the_same_bit_for_bit():
    torch.manual_seed(0)
    x, norm = maps(8, 64, 28, 28), norm_of(64)
    runs = []
    for _ in range(2):
        y = norm_act(norm, x)
        runs.append((y, *torch.autograd.grad(y, (x, *norm.parameters()), y)))
    assert all(map(torch.equal, *runs))


@one_pass
def test_what_is_not_a_number_stays_so_in_its_channel():
    x = maps(2, 3, 4, 4).detach()
    x[0, 1, 2, 2] = torch.nan
    y = norm_act(nn.BatchNorm2d(3), x)
    assert y[:, 1].isnan().all() and not y[:, [0, 2]].isnan().any()
    assert norm_act(nn.BatchNorm2d(3), x.nan_to_num(torch.inf))[:, 1].isnan().all()


@pytest.mark.parametrize(
    "norm, x",
    [
        (nn.BatchNorm2d(8), maps(2, 8, 4, 4).float()),
        (nn.BatchNorm2d(8).eval(), maps(2, 8, 4, 4)),
        (nn.BatchNorm2d(8, affine=False), maps(2, 8, 4, 4)),
        (nn.BatchNorm2d(8, momentum=None), maps(2, 8, 4, 4)),
        (nn.BatchNorm2d(8).bfloat16(), maps(2, 8, 4, 4)),
        (nn.GroupNorm(2, 8), maps(2, 8, 4, 4)),
        (nn.BatchNorm2d(8), maps(2, 8, 4, 4).contiguous()),
        (hooked, maps(2, 8, 4, 4)),
    ],
)
def test_everything_else_is_pytorchs(calls, norm, x):
    with torch.autocast("cpu", torch.bfloat16):
        y, expected = norm_act(norm, x, x), plain(norm, x, x, relu=True)
    assert torch.equal(y, expected) and not calls


def test_a_residual_of_another_shape_is_broadcast(calls):
    x, residual = maps(2, 8, 4, 4), maps(1, 8, 1, 1)
    norm = norm_of(8)
    assert torch.equal(norm_act(norm, x, residual), plain(norm, x, residual, relu=True))
    assert not calls


@one_pass
def test_hooks_may_lay_out_what_is_saved():
    x, norm = maps(2, 8, 4, 5), norm_of(8)
    plain_slopes = torch.autograd.grad(norm_act(norm, x).square().sum(), x)
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved.contiguous(), lambda y: y):
        y = norm_act(norm, x)
    assert torch.equal(*plain_slopes, *torch.autograd.grad(y.square().sum(), x))


@pytest.mark.parametrize("train", [False, True])
def test_torch_fx_sees_torchvisions_nodes(train):
    names = [
        get_graph_node_names(net.train(train))[not train]
        for net in (ResNet(18), torchvision.models.resnet18())
    ]
    theirs = [name for name in names[1] if name not in ("avgpool", "flatten", "fc")]
    modules = [sorted(name.rpartition(".")[0] for name in each) for each in (names[0], theirs)]
    assert modules[0] == modules[1]  # a shortcut comes after its branch
    layer = create_feature_extractor(ResNet(18).train(train), ["layer3"])
    assert layer(torch.randn(2, 3, 32, 32))["layer3"].shape == (2, 256, 2, 2)


def test_one_value_a_channel_is_pytorchs_error():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm_act(nn.BatchNorm2d(8), maps(1, 8, 1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 50])
def test_a_resnet_computes_what_torchvisions_does(depth):
    torch.manual_seed(0)
    ours = ResNet(depth).double()
    theirs = getattr(torchvision.models, f"resnet{depth}")().double()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    theirs.avgpool = theirs.fc = nn.Identity()
    x = torch.randn(2, 3, 64, 64, dtype=torch.double)
    results = [net(x).flatten() if net is theirs else net(x)[0].flatten() for net in (ours, theirs)]
    assert torch.equal(*results)
    for y in results:
        y.square().sum().backward()
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter.grad, theirs.get_parameter(name).grad), name


@one_pass
@pytest.mark.slow
@pytest.mark.parametrize("with_cp", [False, True])
def test_a_resnet_in_bf16_is_as_near_to_float32_as_with_pytorchs_norms(monkeypatch, calls, with_cp):
    torch.manual_seed(0)
    x = torch.randn(16, 3, 64, 64).to(memory_format=torch.channels_last)
    start = ResNet(18).state_dict()

    def trained(bf16: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """The gradient of a step, and the statistics after it."""
        net = ResNet(18, with_cp=with_cp).to(memory_format=torch.channels_last)
        net.load_state_dict(start)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            (y,) = net(x)
        y.float()[:, :256].mean().backward()
        gradient = torch.cat([each.grad.flatten() for each in net.parameters()])
        return gradient, dict(net.named_buffers())

    ours, statistics = trained(bf16=True)
    monkeypatch.setattr(module, "library", lambda: None)
    pytorchs, expected = trained(bf16=True)
    exact, _ = trained(bf16=False)
    assert len(calls) == (20 + 19 if with_cp else 20)  # all but the first are in a block
    assert (ours - exact).norm() < 1.02 * (pytorchs - exact).norm()
    for name, value in statistics.items():
        torch.testing.assert_close(value, expected[name], rtol=0.02, atol=0.02)
