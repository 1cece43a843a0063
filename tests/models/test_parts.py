import math

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.registry import DefaultScope
from torch import nn

from densessl.errors import UserError
from densessl.models import (
    BYOL,
    CPC,
    BarlowTwins,
    DenseHead,
    FeatureQueue,
    GlobalHead,
    ResNet,
    SimCLR,
    Teacher,
    TimmBackbone,
    VICReg,
    build_backbone,
)
from densessl.models.health import dense_health, health
from tests.models.tiny import build, optimizer_for, views

LINEAR = dict(type="GlobalHead", hidden_channels=(), out_channels=4)


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


def test_queue_takes_in_all_micro_batches_of_a_step_at_once():
    queue, whole = FeatureQueue(5, 2), FeatureQueue(5, 2)
    whole.load_state_dict(queue.state_dict())
    keys = torch.randn(3, 2)
    queue.remember(keys[:1])
    queue.remember(keys[1:])
    assert torch.equal(queue.features, whole.features)
    queue.advance()
    whole.enqueue(keys)
    assert torch.equal(queue.features, whole.features) and queue.pointer == 3
    queue.remember(keys)
    queue.advance()
    assert queue.pointer == 1
    queue.eval().remember(keys)  # of a validation
    queue.advance()
    assert queue.pointer == 1


def test_a_queue_longer_than_half_of_the_images_is_warned_about():
    for size, images in ((50, 100), (65536, 1_281_167), (98304, 1_281_167)):
        assert FeatureQueue(size, 1).warnings(images) == []
    (line,) = FeatureQueue(51, 1).warnings(100)
    assert "queue of 51 keys is long for 100 images: 51% of them" in line
    (line,) = FeatureQueue(200, 1).warnings(100)
    assert "100% of them" in line and "model.queue_size" in line


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


def test_teacher_momentum_goes_from_start_to_end():
    teacher = Teacher(0.9, 1.0, layer=nn.Linear(1, 1))
    found = [teacher.momentum_at(progress) for progress in (0, 1 / 3, 0.5, 1)]
    assert found == pytest.approx([0.9, 0.925, 0.95, 1.0], abs=1e-12)
    assert Teacher(0.9, layer=nn.Linear(1, 1)).momentum_at(0.7) == 0.9


def test_teacher_distance_is_relative_to_the_student():
    student = Student()
    teacher = Teacher(0.5, backbone=student.backbone, head=student.head)
    assert teacher.distance(student) == 0
    with torch.no_grad():
        for p in teacher.parameters():
            p.mul_(1.25)
    assert teacher.distance(student).item() == pytest.approx(0.25, abs=1e-6)


class MMBackbone(BaseModule):
    """As mmdet's: mmengine gives it other weights after it was built."""

    def __init__(self):
        super().__init__(init_cfg=dict(type="Constant", layer="Conv2d", val=0.25))
        self.out_channels, self.conv = (4,), nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return (self.conv(x),)


def test_the_teacher_begins_as_the_student_whatever_mmengine_does_to_it():
    with DefaultScope.overwrite_default_scope("densessl"):
        method = BYOL(MMBackbone(), LINEAR, LINEAR)
    method.init_weights()
    assert (method.backbone.conv.weight == 0.25).all()
    assert method.teacher.distance(method) == 0
    with torch.no_grad():
        method.backbone.conv.weight.add_(1)
    method.init_weights()  # a second time it does nothing
    assert method.teacher.distance(method) > 0


class TwoLosses(SimCLR):
    """A method of a user's own that adds a term."""

    def loss(self, batch):
        figures = super().loss(batch)
        return {**figures, "loss_extra": 2 * figures["loss"]}


def test_the_logged_loss_is_all_that_is_minimised():
    method = build(TwoLosses, LINEAR)
    log = method.train_step(views(), optimizer_for(method))
    assert log["loss"].item() == pytest.approx(1.5 * log["loss_extra"].item())


@pytest.mark.parametrize(
    ("figures", "problem"),
    [
        (dict(cost=torch.ones(())), "SimCLR.loss.. gives nothing to minimise"),
        (dict(loss=torch.ones(()), share=0.5), "gives what is no tensor: share"),
    ],
)
def test_a_loss_of_ones_own_must_give_tensors_and_something_to_minimise(figures, problem):
    with pytest.raises(UserError, match=problem):
        build(SimCLR, LINEAR).parse_losses(figures)


def kinds(head):
    return [type(layer).__name__ for layer in head.mlp]


def test_heads_have_the_norms_and_biases_asked_for():
    plain = GlobalHead(6, (8,), 4)
    assert kinds(plain) == ["Linear", "ReLU", "Linear"]
    simclr = GlobalHead(6, (8,), 4, norm=True, last_norm="bn_no_shift")
    assert kinds(simclr) == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert [n for n, p in simclr.named_parameters() if not p.requires_grad] == ["mlp.4.bias"]
    assert simclr.mlp[4].bias.abs().max() == 0
    byol = GlobalHead(6, (8,), 4, norm=True)
    assert byol.mlp[0].bias is None and byol.mlp[3].bias is not None
    barlow = GlobalHead(6, (8, 8), 4, norm=True, bias=False)
    assert [n for n, _ in barlow.named_parameters() if n in ("mlp.0.bias", "mlp.6.bias")] == []
    mocov3 = DenseHead(6, (8,), 4, norm=True, last_norm="bn_no_affine", bias=False)
    assert kinds(mocov3) == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d"]
    assert mocov3.mlp[4].weight is None
    with pytest.raises(UserError, match="last_norm='ln'"):
        GlobalHead(6, last_norm="ln")


def test_a_global_head_takes_vectors_and_pools_maps():
    head = GlobalHead(6, (8,), 4)
    features = torch.randn(3, 6, 2, 5)
    assert torch.allclose(head(features), head(features.mean((2, 3))), atol=1e-6)


def test_health_of_one_image_is_its_alignment():
    """A spread of one image would look like a collapse."""
    assert health(torch.eye(3)[:1], -torch.eye(3)[:1]) == {"alignment": torch.tensor(4.0)}


def test_health_of_cells_is_their_spread_at_each_place():
    """Not over places: what tells only those apart is no content."""
    places = torch.eye(8)[:4].T.reshape(1, 8, 2, 2)
    assert dense_health(places.expand(50, -1, -1, -1))["dense_std"].item() == 0
    torch.manual_seed(0)
    even = dense_health(torch.randn(500, 512, 2, 2, requires_grad=True))["dense_std"]
    assert even.item() == pytest.approx(1, abs=0.01) and not even.requires_grad
    cells = torch.randn(3, 5, 2, 2, dtype=torch.float64)
    unit = cells / cells.square().sum(1, keepdim=True).sqrt()
    apart = (unit - unit.mean(0)).square().mean(0).sqrt().mean() * math.sqrt(5)
    assert dense_health(7 * cells)["dense_std"].item() == pytest.approx(apart.item(), abs=1e-12)
    assert dense_health(cells[:1]) == {}


def test_health_of_a_collapse_and_of_an_even_spread():
    same = torch.ones(50, 8)
    collapsed = health(same, 3 * same)
    for name in ("embedding_std", "alignment", "uniformity"):
        assert collapsed[name].item() == pytest.approx(0, abs=1e-5), name
    torch.manual_seed(0)
    even = torch.randn(500, 512, requires_grad=True)
    spread = health(even, -even)
    assert spread["embedding_std"].item() == pytest.approx(1, abs=0.01)
    assert spread["alignment"].item() == pytest.approx(4, abs=1e-5)
    assert spread["uniformity"].item() == pytest.approx(-4, abs=0.05)
    one, two = torch.randn(2, 4, 3, dtype=torch.float64)
    one, two = ((x.T / x.norm(dim=1)).T for x in (one, two))
    pairs = [(one[i] - one[j]).square().sum() for i in range(4) for j in range(i)]
    figures = health(one, two)
    expected = torch.stack([(-2 * d).exp() for d in pairs]).mean().log()
    assert figures["uniformity"].item() == pytest.approx(expected.item(), abs=1e-12)
    assert figures["alignment"].item() == pytest.approx(
        ((one - two) ** 2).sum().item() / 4, abs=1e-12
    )


def test_the_smallest_batch_is_of_one_process_where_its_batch_norm_sees_no_other(monkeypatch):
    monkeypatch.setattr("densessl.models.methods.base.get_world_size", lambda: 2)
    options = dict(grid=2, offsets=(1,), dim=3)
    alone = build(CPC, dict(type="MaskedContext", width=4, num_blocks=1), **options)  # no sync_bn
    joint = build(SimCLR, dict(type="GlobalHead", out_channels=4))
    one = views(size=1)
    assert len(alone.views_of(one, 2)) == 2
    with pytest.raises(UserError, match="this batch has 1"):
        joint.views_of(one, 2)  # on CPUs


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_resnet_keys_are_torchvisions(depth):
    import torchvision

    with torch.device("meta"):
        ours = ResNet(depth)
        theirs = getattr(torchvision.models, f"resnet{depth}")()
    expected = {k: v.shape for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    assert {k: v.shape for k, v in ours.state_dict().items()} == expected


@pytest.mark.parametrize("zero", [False, True])
def test_residual_branches_begin_at_zero_where_asked(zero):
    for depth, last in ((18, "bn2.weight"), (50, "bn3.weight")):
        named = ResNet(depth, zero_init_residual=zero).named_parameters()
        weights = [parameter for name, parameter in named if name.endswith(last)]
        assert weights and all((weight == (0 if zero else 1)).all() for weight in weights)


def test_resnet_maps_have_the_declared_channels_and_strides():
    backbone = ResNet(18, out_indices=(0, 1, 2, 3)).eval()
    maps = backbone(torch.randn(1, 3, 64, 96))
    assert [m.shape[1] for m in maps] == list(backbone.out_channels) == [64, 128, 256, 512]
    assert [m.shape[2:] for m in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    with pytest.raises(UserError, match="no ResNet of depth 20"):
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


@pytest.mark.parametrize("stages", [(3, 2), (-1,), (2, 2), (4,), ()])
def test_stages_are_named_in_order(stages):
    for make in (lambda: ResNet(18, stages), lambda: TimmBackbone("resnet18", stages)):
        with pytest.raises(UserError, match=r"model\.backbone\.out_indices is \("):
            make()


def test_a_method_trains_all_of_its_backbone():
    head = dict(type="GlobalHead", out_channels=4)
    with pytest.raises(UserError, match=r"out_indices is \(2,\).*stay random"):
        SimCLR(ResNet(18, out_indices=(2,)), head)


def test_own_parts_are_found_whatever_the_default_scope():
    head = GlobalHead(512, (), 4)
    with DefaultScope.overwrite_default_scope("mmengine"):
        for method in (SimCLR, BarlowTwins, VICReg):
            method(ResNet(18), head)


def test_unknown_timm_model_is_refused_with_a_near_name():
    with pytest.raises(UserError, match="convnext_atto"):
        TimmBackbone("convnext_attoo")


def test_kaiming_start_of_resnet_is_torchvisions():
    weight = ResNet(18).layer1[0].conv1.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.05)
