import math

import pytest
import torch
from torch import nn

from densessl.errors import UserError
from densessl.models import FeatureQueue, ResNet, Teacher, TimmBackbone, build_backbone


def test_queue_wraps_and_keeps_the_newest():
    queue = FeatureQueue(5, 2)
    start = queue.features.clone()
    assert torch.allclose(start.norm(dim=1), torch.ones(5))
    keys = torch.arange(14.0).view(7, 2)
    queue.enqueue(keys[:3])
    assert torch.equal(queue.features[:3], keys[:3]) and torch.equal(queue.features[3:], start[3:])
    queue.enqueue(keys[3:7])
    assert torch.equal(queue.features, keys[[5, 6, 2, 3, 4]])
    assert queue.pointer == 2


def test_queue_takes_more_keys_than_it_holds():
    queue = FeatureQueue(4, 1)
    queue.enqueue(torch.zeros(1, 1))
    queue.enqueue(torch.arange(1.0, 11.0).view(10, 1))
    one_by_one = FeatureQueue(4, 1)
    for key in torch.arange(11.0).view(11, 1, 1):
        one_by_one.enqueue(key)
    assert torch.equal(queue.features, one_by_one.features)
    assert queue.pointer == one_by_one.pointer


def test_queue_is_part_of_the_state():
    one, two = FeatureQueue(6, 3), FeatureQueue(6, 3)
    one.enqueue(torch.ones(4, 3))
    two.load_state_dict(one.state_dict())
    assert torch.equal(one.features, two.features) and two.pointer == 4


class Student(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 2)
        self.predictor = nn.Linear(2, 2)


def test_teacher_starts_equal_has_no_gradient_and_follows():
    student = Student()
    teacher = Teacher(0.75, backbone=student.backbone, head=student.head)
    assert all(not p.requires_grad for p in teacher.parameters())
    assert {name for name, _ in teacher.named_children()} == {"backbone", "head"}
    old = [p.clone() for p in teacher.parameters()]
    with torch.no_grad():
        for p in student.parameters():
            p.add_(torch.randn_like(p))
        student.backbone[1].running_mean.add_(5)
    teacher.update(student)
    followed = [*student.backbone.parameters(), *student.head.parameters()]
    for own, was, target in zip(teacher.parameters(), old, followed, strict=True):
        assert torch.allclose(own, 0.75 * was + 0.25 * target, atol=1e-6)
    assert teacher.backbone[1].running_mean.abs().max() == 0


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_resnet_keys_are_torchvisions(depth):
    import torchvision

    with torch.device("meta"):
        ours = ResNet(depth)
        theirs = getattr(torchvision.models, f"resnet{depth}")()
    expected = {k: v.shape for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    assert {k: v.shape for k, v in ours.state_dict().items()} == expected


def test_resnet_maps_have_the_declared_channels_and_strides():
    backbone = ResNet(18, out_indices=(0, 1, 2, 3)).eval()
    maps = backbone(torch.randn(1, 3, 64, 96))
    assert [m.shape[1] for m in maps] == list(backbone.out_channels) == [64, 128, 256, 512]
    assert [m.shape[2:] for m in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    with pytest.raises(ValueError, match="depth 20"):
        ResNet(20)


@pytest.mark.parametrize(
    "name,options,channels",
    [
        ("resnet18", {}, (128, 512)),
        ("convnext_atto", {}, (80, 320)),
        ("vit_tiny_patch16_224", dict(img_size=64), (192, 192)),
    ],
)
def test_timm_backbones_give_maps(name, options, channels):
    backbone = build_backbone(dict(type="TimmBackbone", name=name, out_indices=(1, 3), **options))
    maps = backbone(torch.randn(2, 3, 64, 64))
    assert backbone.out_channels == channels
    assert tuple(m.shape[1] for m in maps) == channels
    sum(m.sum() for m in maps).backward()
    silent = [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent, "parameters outside the forward break DistributedDataParallel"


def test_unknown_timm_model_is_refused_with_a_near_name():
    with pytest.raises(UserError, match="convnext_atto"):
        TimmBackbone("convnext_attoo")


def test_kaiming_start_of_resnet_is_torchvisions():
    weight = ResNet(18).layer1[0].conv1.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.05)
