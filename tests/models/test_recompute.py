"""Gradient checkpointing and compilation change nothing but memory and time."""

import pytest
import torch
from torch import nn

from densessl.engine.compiling import compile_networks, networks
from densessl.errors import UserError
from densessl.models import DenseCL, DenseHead, GlobalHead, ResNet
from densessl.models.backbones import SplitResNet, TimmBackbone
from densessl.models.backbones.recompute import recomputed
from tests.models.tiny import build, optimizer_for, views


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
def test_checkpointing_keeps_values_gradients_and_statistics(frozen):
    nets = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        nets.append(ResNet(18, (1, 3), with_cp=with_cp).double().train(not frozen))
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    for net in nets:
        sum(part.square().mean() for part in net(x)).backward()
    plain, recomputed = (dict(net.named_parameters()) for net in nets)
    assert plain.keys() == recomputed.keys()
    for name, parameter in plain.items():
        assert torch.equal(parameter.grad, recomputed[name].grad), name
    for name, value in nets[0].state_dict().items():
        assert torch.equal(value, nets[1].state_dict()[name]), name
    assert nets[1].layer1[0].bn1.momentum == 0.1


def test_checkpointing_keeps_fewer_activations():
    def kept(with_cp: bool) -> int:
        net, sizes = ResNet(18, with_cp=with_cp), []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            net(torch.randn(2, 3, 32, 32))
        return sum(sizes)

    assert kept(True) < kept(False) / 2


@pytest.mark.parametrize(
    "make",
    [
        lambda **o: TimmBackbone("vit_tiny_patch16_224", img_size=32, embed_dim=12, **o),
        lambda **o: TimmBackbone("convnext_atto", **o),
        lambda **o: SplitResNet(18, 0.25, (1, 2), **o),
    ],
    ids=["vit", "convnext", "split"],
)
def test_other_backbones_are_checkpointed_too(make):
    nets, kept = [], []
    for with_cp in (False, True):
        torch.manual_seed(0)
        net, sizes = make(with_cp=with_cp).double(), []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.numel()) or tensor,
            lambda tensor: tensor,
        ):
            loss = net(torch.ones(2, 3, 32, 32, dtype=torch.float64))[-1].square().mean()
        kept.append(sum(sizes))
        loss.backward()
        nets.append(net)
    assert kept[1] < kept[0] / 2
    for plain, again in zip(*(net.parameters() for net in nets), strict=True):
        assert (plain.grad is None) == (again.grad is None)
        assert plain.grad is None or torch.allclose(plain.grad, again.grad, atol=1e-12)


def test_what_cannot_be_checkpointed_is_named():
    with pytest.raises(UserError, match="without BatchNorm, and resnet10t has some"):
        TimmBackbone("resnet10t", with_cp=True)


def method():
    torch.manual_seed(0)
    return build(DenseCL, GlobalHead(12, (16,), 8), DenseHead(12, (16,), 8), queue_size=37)


def test_backbone_heads_and_their_twins_are_the_networks():
    model = method()
    expected = [model.backbone, model.head, model.teacher.backbone, model.teacher.head]
    expected += [model.dense_head, model.teacher.dense_head]
    assert {id(part) for part in networks(model)} == {id(part) for part in expected}
    assert networks(model.head) == [model.head]


@pytest.mark.slow
def test_compiled_networks_train_the_same_under_the_same_keys():
    results = []
    for options in (False, dict(backend="aot_eager")):
        model = method()
        compile_networks(model, options)
        compiled = [part._compiled_call_impl is not None for part in networks(model)]
        assert compiled == [bool(options)] * 6
        wrapper = optimizer_for(model)
        losses = [model.train_step(views(seed=step), wrapper)["loss"] for step in range(3)]
        results.append((losses, model.state_dict()))
    (plain, state), (compiled, other) = results
    assert torch.allclose(torch.stack(plain), torch.stack(compiled), rtol=0, atol=1e-9)
    assert state.keys() == other.keys()


def test_checkpointing_takes_batchnorm_over_several_gpus():
    """Without ranks SyncBatchNorm is a plain one, but it too asks for its counter."""
    norms = [nn.BatchNorm2d(3), nn.SyncBatchNorm(3)]
    for norm in norms:
        recomputed(norm, torch.randn(2, 3, 4, 4, requires_grad=True)).sum().backward()
        assert norm.num_batches_tracked == 1


def test_parts_that_are_only_called_apart_are_networks_of_their_own():
    split = SplitResNet(18)
    assert networks(split) == list(split.parts)
    heads = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    assert networks(heads) == list(heads)


def test_compiling_and_checkpointing_do_not_go_together():
    with pytest.raises(UserError, match="with_cp=True"):
        compile_networks(ResNet(18, with_cp=True), True)
    compile_networks(ResNet(18, with_cp=True), False)


def test_an_embedding_is_a_forward_pass():
    """Or torch.compile, which compiles calls, would leave it out."""
    backbone = TimmBackbone("resnet10t", out_indices=(2, 3)).eval()
    seen = []
    backbone.register_forward_hook(lambda *_: seen.append(1))
    last, pooled = backbone.embed(torch.randn(2, 3, 32, 32))
    assert seen and torch.allclose(last.mean((2, 3)), pooled, atol=1e-6)
