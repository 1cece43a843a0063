"""PixPro against a plain float64 transcription of its definition."""

import math

import pytest
import torch

from densessl.errors import UserError
from densessl.models import PixPro
from tests.models.checks import assert_golden, assert_one_step, assert_same
from tests.models.tiny import build, optimizer_for, views

MLP = dict(type="DenseHead", hidden_channels=(16,), out_channels=10, norm=True)
BRANCH = dict(instance_head=MLP, instance_predictor=MLP)


def pixpro(**options):
    return build(PixPro, MLP, **options)


def unit(vector):
    return vector / vector.norm()


def places(record, b, grid):
    """Centre of each cell in source pixels, row by row, and the cell's diagonal."""
    x0, y0, x1, y1 = record.box[b].double().tolist()
    width, height = (x1 - x0) / grid, (y1 - y0) / grid
    columns = list(range(grid))
    if record.flip[b]:
        columns.reverse()
    centers = [
        (x0 + (j + 0.5) * width, y0 + (i + 0.5) * height) for i in range(grid) for j in columns
    ]
    return centers, math.hypot(width, height)


def pairs_of(one, two, b, grid):
    (centers_1, diagonal_1), (centers_2, diagonal_2) = (places(r, b, grid) for r in (one, two))
    reach = 0.7 * max(diagonal_1, diagonal_2)
    return [
        (i, j)
        for i, a in enumerate(centers_1)
        for j, c in enumerate(centers_2)
        if math.dist(a, c) < reach
    ]


def propagated(x, g, gamma):
    """(C, N) cells and their transforms -> list of N unit vectors."""
    result = []
    for i in range(x.shape[1]):
        y = 0
        for j in range(x.shape[1]):
            cosine = unit(x[:, i]) @ unit(x[:, j])
            y = y + torch.clamp(cosine, min=0) ** gamma * unit(g[:, j])
        result.append(unit(y))
    return result


def direction(x, g, target, pairs_by_image, gamma):
    terms = []
    for b, pairs in enumerate(pairs_by_image):
        y = propagated(x[b].flatten(1), g[b].flatten(1), gamma)
        cosines = [y[i] @ unit(target[b].flatten(1)[:, j]) for i, j in pairs]
        terms.append(-torch.stack(cosines).mean() if pairs else x.new_zeros(()))
    return 2 * torch.stack(terms).mean()


def reference(method, batch, gamma, instance):
    one, two = batch.records
    maps = [method.backbone(v)[0] for v in batch.views]
    with torch.no_grad():
        teacher_maps = [method.teacher.backbone(v)[0] for v in batch.views]
        targets = [method.teacher.head(m) for m in teacher_maps]
    cells = [method.head(m) for m in maps]
    transforms = [method.propagation.transform(c) for c in cells]
    grid = maps[0].shape[-1]
    there = [pairs_of(one, two, b, grid) for b in range(len(maps[0]))]
    back = [[(j, i) for i, j in pairs] for pairs in there]
    loss = direction(cells[0], transforms[0], targets[1], there, gamma)
    loss = loss + direction(cells[1], transforms[1], targets[0], back, gamma)
    if instance:
        pooled = [method.instance_predictor(method.instance_head(m)).mean((2, 3)) for m in maps]
        with torch.no_grad():
            goals = [method.teacher.instance_head(m).mean((2, 3)) for m in teacher_maps]
        for p, z in ((pooled[0], goals[1]), (pooled[1], goals[0])):
            loss = loss - instance * 2 * sum(unit(a) @ unit(b) for a, b in zip(p, z)) / len(p)  # noqa: B905
    return loss, there


@pytest.mark.slow
@pytest.mark.parametrize("gamma,instance", [(2.0, 0.0), (3.0, 0.5)])
def test_loss_and_gradient_equal_the_definition(gamma, instance):
    method = pixpro(gamma=gamma, instance_weight=instance, **(BRANCH if instance else {}))
    batch = views(size=4, side=16)
    # The last image's crops lie far apart: it counts in the mean and adds nothing.
    batch.records[1].box[3] += 500
    expected, pairs = reference(method, batch, gamma, instance)
    assert not pairs[3] and any(pairs)
    figures = method.loss(batch)
    assert_same(method, batch, expected)
    assert figures["overlap"] == sum(map(bool, pairs)) / 4
    assert figures["pairs_per_image"] == sum(map(len, pairs)) / 4


def test_views_of_two_sizes_pair_cells_of_two_grids():
    method, large, small = pixpro(), views(size=3, side=28), views(size=3, side=16)
    batch = large._replace(views=(large.views[0], small.views[1]))
    pairs = method.pairs(batch.records, (7, 4))
    assert pairs.shape == (3, 49, 16) and pairs.any()
    figures = method.loss(batch)
    assert figures["pairs_per_image"].item() == pytest.approx(pairs.sum().item() / 3)
    figures["loss"].backward()


def test_the_same_crop_mirrored_pairs_each_cell_with_its_mirror_image():
    method, batch = pixpro(), views(size=2, side=28)
    box = torch.tensor([[10.0, 20, 60, 70]]).expand(2, -1)
    same = batch.records[0]._replace(box=box, flip=torch.tensor([False, False]))
    mirrored_second = same._replace(flip=torch.tensor([True, False]))
    pairs = method.pairs((same, mirrored_second), (7, 7))
    assert torch.equal(pairs[1], torch.eye(49, dtype=torch.bool))
    mirrored = torch.arange(49).view(7, 7).flip(1).flatten()
    assert torch.equal(pairs[0].int().argmax(1), mirrored) and pairs[0].sum() == 49


@pytest.mark.parametrize("branch", [{}, BRANCH])
def test_one_step_changes_what_it_should_and_nothing_else(branch):
    method = pixpro(momentum=0.9, **branch)
    method.total_steps = 10
    changed = assert_one_step(method, views(), momentum=0.9)
    assert changed.keys() == dict(method.named_buffers()).keys()
    has_branch = any(name.startswith("instance") for name in method.state_dict())
    assert has_branch == bool(branch)


def test_the_teacher_moves_once_a_step_and_ever_slower():
    method = pixpro(momentum=0.9)
    method.total_steps = 4
    wrapper = optimizer_for(method, accumulation=2)
    student = dict(method.named_parameters())
    for t in range(4):
        old = {name: p.clone() for name, p in method.teacher.named_parameters()}
        method.train_step(views(size=4, seed=t), wrapper)
        kept = 1 - 0.1 * (1 + math.cos(math.pi * t / 4)) / 2
        for name, parameter in method.teacher.named_parameters():
            expected = kept * old[name] + (1 - kept) * student[name]
            assert torch.allclose(parameter, expected, atol=1e-12), (t, name)
    assert method.step == 4


def test_half_an_instance_branch_is_refused():
    with pytest.raises(UserError, match="model.instance_predictor"):
        pixpro(instance_head=MLP)


def test_a_single_view_is_refused_by_the_name_of_the_key():
    with pytest.raises(UserError, match="transform.views"):
        pixpro().loss(views(count=1))


@pytest.mark.slow
def test_twenty_steps_repeat_the_golden_losses():
    method = pixpro(momentum=0.9, **BRANCH)
    assert_golden("pixpro", method, lr=0.05, batches=lambda step: views(size=4, side=16, seed=step))
