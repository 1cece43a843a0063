import math

import pytest
import torch

from densessl.models import BYOL, MoCoV3, SimSiam
from tests import plain
from tests.models import checks
from tests.models.tiny import TinyBackbone, build, optimizer_for, views

WITH_LAST_NORM = dict(checks.HEAD, last_norm="bn")


def byol(head=checks.HEAD, predictor=checks.PREDICTOR, **options):
    return build(BYOL, head, predictor, **options)


def mocov3(head=WITH_LAST_NORM, predictor=checks.PREDICTOR, **options):
    return build(MoCoV3, head, predictor, **options)


def simsiam(head=WITH_LAST_NORM, predictor=checks.PREDICTOR, **options):
    return build(SimSiam, head, predictor, **options)


ALL = pytest.mark.parametrize("make", [byol, mocov3, simsiam])
WITH_TEACHER = pytest.mark.parametrize("make", [byol, mocov3])


def embed(method, views):
    """Projections and predictions of both views."""
    z = [method.head(method.backbone(view)[0]) for view in views]
    return z, [method.predictor(projection) for projection in z]


def teacher_away(method):
    """Moves the teacher, which starts where the student is."""
    torch.manual_seed(5)
    for p in method.teacher.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return method


def test_byol_equals_its_definition():
    method, batch = teacher_away(byol()), views()
    _, (p1, p2) = embed(method, batch.views)
    t1, t2 = (method.teacher.head(method.teacher.backbone(v)[0]) for v in batch.views)
    cosines = [plain.negative_cosine(p1, t2), plain.negative_cosine(p2, t1)]
    checks.assert_same(method, batch, sum(2 + 2 * cosine for cosine in cosines))


@WITH_TEACHER
def test_the_log_shows_the_spread_of_projections_not_of_predictions(make):
    method, batch = make(), views()
    (z1, _), _ = embed(method, batch.views)
    spread = torch.stack([plain.unit(row) for row in z1]).std(0, correction=0).mean() * 10**0.5
    assert method.loss(batch)["embedding_std"].item() == pytest.approx(spread.item(), abs=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_mocov3_equals_its_definition(temperature):
    method, batch = teacher_away(mocov3(temperature=temperature)), views()
    _, (p1, p2) = embed(method, batch.views)
    t1, t2 = (method.teacher.head(method.teacher.backbone(v)[0]) for v in batch.views)
    q1, q2, k1, k2 = ([plain.unit(row) for row in x] for x in (p1, p2, t1, t2))
    contrasts = plain.batch_nce(q1, k2, temperature) + plain.batch_nce(q2, k1, temperature)
    checks.assert_same(method, batch, 2 * temperature * contrasts)


def test_simsiam_equals_its_definition():
    method, batch = simsiam(), views()
    (z1, z2), (p1, p2) = embed(method, batch.views)
    terms = plain.negative_cosine(p1, z2.detach()) + plain.negative_cosine(p2, z1.detach())
    checks.assert_same(method, batch, terms / 2)


@ALL
def test_one_step_changes_what_it_should_and_nothing_else(make):
    method = make() if make is simsiam else make(momentum=0.9)
    changed = checks.assert_one_step(method, views(), momentum=0.9)
    assert all(".running_" in name or name.endswith("tracked") for name in changed), changed


def test_the_teachers_batch_norm_statistics_are_its_own():
    method = teacher_away(byol())
    method.train_step(views(), optimizer_for(method))
    own, students = (m.layers[1].running_mean for m in (method.teacher.backbone, method.backbone))
    assert not torch.allclose(own, students)
    assert not any(name.startswith("predictor") for name, _ in method.teacher.named_modules())


@pytest.mark.slow
@WITH_TEACHER
def test_momentum_rises_along_half_a_cosine_by_optimizer_steps(make):
    method = make(momentum=0.9, end_momentum=1.0)
    method.total_steps = 4
    wrapper = optimizer_for(method, accumulation=2)
    for step in range(4):
        before = [p.clone() for p in method.teacher.parameters()]
        method.train_step(views(size=8, seed=step), wrapper)
        m = 1 - (1 - 0.9) * (1 + math.cos(math.pi * step / 4)) / 2
        student = [*method.backbone.parameters(), *method.head.parameters()]
        for old, new, followed in zip(before, method.teacher.parameters(), student, strict=True):
            assert torch.allclose(new, m * old + (1 - m) * followed, atol=1e-12)


@pytest.mark.parametrize("make", [byol, simsiam])
def test_accumulation_equals_one_large_batch_without_batch_norm(make):
    """Four micro-batches of 8 and one of 32: same student and teacher."""
    states = []
    for accumulation in (1, 4):
        torch.manual_seed(1)
        method = make(checks.PLAIN_HEAD, checks.PLAIN_PREDICTOR, backbone=TinyBackbone(norm=False))
        method.total_steps = 3
        wrapper = optimizer_for(method, accumulation)
        for step in range(3):
            method.train_step(views(size=32, seed=step), wrapper)
        states.append(method.state_dict())
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], atol=1e-6), name


@pytest.mark.slow
@ALL
def test_twenty_steps_repeat_the_golden_losses(make):
    checks.assert_golden(make.__name__, make())


@ALL
def test_bad_input_and_the_log(make):
    checks.assert_wants_two_views(make())
    figures = ["teacher_distance"] if make is not simsiam else []
    checks.assert_healthy_figures(make().loss(views()), *figures)
