"""DenseCL and MoCo v2 against plain float64 transcriptions of their definitions."""

import json
import math
from pathlib import Path

import pytest
import torch

from densessl.errors import UserError
from densessl.models import DenseCL, DenseHead, GlobalHead, MoCo
from tests.models.tiny import TinyBackbone, build, optimizer_for, views

TAU = 0.2


def unit(vector):
    return vector / vector.norm()


def rows(vectors):
    """(N, C), each of length 1."""
    return vectors / vectors.norm(dim=1, keepdim=True)


def nce(query, positive, negatives):
    """-log of the positive's softmax, for one query."""
    logits = torch.stack([query @ positive] + [query @ n for n in negatives]) / TAU
    return -(logits[0] - torch.logsumexp(logits, 0))


def adaptive_pool(cells, grid):
    """(C, H, W) -> (C, S, S) by the definition of adaptive average pooling."""
    height, width = cells.shape[1:]
    pooled = cells.new_zeros(len(cells), grid, grid)
    for i in range(grid):
        for j in range(grid):
            rows = slice(math.floor(i * height / grid), math.ceil((i + 1) * height / grid))
            columns = slice(math.floor(j * width / grid), math.ceil((j + 1) * width / grid))
            pooled[:, i, j] = cells[:, rows, columns].mean((1, 2))
    return pooled


def moco(head=None, **options):
    head = head or dict(type="GlobalHead", hidden_channels=(16,), out_channels=10)
    return build(MoCo, head, **dict(dict(queue_size=37, temperature=TAU), **options))


def densecl(**options):
    head = dict(type="GlobalHead", hidden_channels=(16,), out_channels=10)
    dense = dict(type="DenseHead", hidden_channels=(16,), out_channels=10)
    return build(DenseCL, head, dense, **dict(dict(queue_size=37, temperature=TAU), **options))


def test_moco_equals_its_definition():
    method, batch = moco(), views()
    images, key_images = batch.views
    with torch.no_grad():
        q = method.head(method.backbone(images)[0])
        k = method.teacher.head(method.teacher.backbone(key_images)[0])
        queue = method.queue.features
        expected = torch.stack([nce(unit(q[i]), unit(k[i]), queue) for i in range(len(q))]).mean()
    assert abs(method.loss(batch)["loss"].item() - expected.item()) < 1e-6


@pytest.mark.parametrize("grid", [7, 3, None])
def test_densecl_equals_its_definition(grid):
    method, batch = densecl(grid=grid), views(size=3)
    images, key_images = batch.views
    with torch.no_grad():
        query_maps = method.backbone(images)[0]
        key_maps = method.teacher.backbone(key_images)[0]
        global_terms, dense_terms = [], []
        for query_map, key_map in zip(query_maps, key_maps, strict=True):
            q = unit(method.head(query_map[None])[0])
            k = unit(method.teacher.head(key_map[None])[0])
            global_terms.append(nce(q, k, method.queue.features))

            f_query = query_map if grid is None else adaptive_pool(query_map, grid)
            f_key = key_map if grid is None else adaptive_pool(key_map, grid)
            dense_q = method.dense_head(f_query[None])[0].flatten(1)
            dense_k = method.teacher.dense_head(f_key[None])[0].flatten(1)
            f_query, f_key = f_query.flatten(1), f_key.flatten(1)
            for i in range(f_query.shape[1]):
                cosines = [unit(f_query[:, i]) @ unit(f_key[:, j]) for j in range(f_key.shape[1])]
                match = max(range(len(cosines)), key=lambda j, c=cosines: c[j])
                dense_terms.append(
                    nce(unit(dense_q[:, i]), unit(dense_k[:, match]), method.dense_queue.features)
                )
        expected = 0.5 * torch.stack(global_terms).mean() + 0.5 * torch.stack(dense_terms).mean()
    assert len(dense_terms) == 3 * (49 if grid is None else grid**2)
    assert abs(method.loss(batch)["loss"].item() - expected.item()) < 1e-6


def test_lambda_weighs_the_two_losses_and_warms_up():
    batch = views()
    figures = densecl(loss_lambda=0.3).loss(batch)
    expected = 0.7 * figures["global"] + 0.3 * figures["dense"]
    assert figures["loss"].item() == pytest.approx(expected.item(), abs=1e-12)
    waiting = densecl(warmup_steps=5)
    assert waiting.loss(batch)["loss"].item() == waiting.loss(batch)["global"].item()
    waiting.step = 5
    assert waiting.loss(batch)["lambda"].item() == 0.5


@pytest.mark.parametrize("make", [moco, densecl])
def test_one_step_changes_what_it_should_and_nothing_else(make):
    method, batch = make(momentum=0.9), views()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    student = {name: p.detach().clone() for name, p in method.named_parameters()}
    method.train_step(batch, optimizer_for(method))
    after = method.state_dict()

    for name, parameter in method.named_parameters():
        changed = not torch.equal(after[name], before[name])
        assert changed, f"{name} did not move"
        if name.startswith("teacher."):
            twin = dict(method.named_parameters())[name.removeprefix("teacher.")]
            expected = 0.9 * student[name] + 0.1 * twin
            assert torch.allclose(parameter, expected, atol=1e-12), name
            assert parameter.grad is None
    queues = ["queue", "dense_queue"] if isinstance(method, DenseCL) else ["queue"]
    for queue in queues:
        old, new = before[f"{queue}.features"], after[f"{queue}.features"]
        assert after[f"{queue}.pointer"] == 6
        assert torch.equal(old[6:], new[6:]) and not torch.equal(old[:6], new[:6])
        assert torch.allclose(new.norm(dim=1), torch.ones(37, dtype=torch.float64))
    # The teacher's BatchNorm statistics are its own: those of the key views.
    student_mean = after["backbone.layers.1.running_mean"]
    assert not torch.equal(after["teacher.backbone.layers.1.running_mean"], student_mean)


def test_negatives_are_read_before_the_batch_is_enqueued():
    method, batch = moco(queue_size=6), views()
    first = method.loss(batch)["loss"]
    assert method.loss(batch)["loss"] == first
    method.train_step(batch, optimizer_for(method, lr=0.0))
    assert method.loss(batch)["loss"] != first


def test_the_queue_holds_the_teachers_keys_pooled_before_normalisation():
    method, batch = densecl(), views()
    with torch.no_grad():
        cells = method.teacher.dense_head(method.teacher.backbone(batch.views[1])[0])
        pooled = cells.mean((2, 3))
        expected = pooled / pooled.norm(dim=1, keepdim=True)
    method.train_step(batch, optimizer_for(method))
    assert torch.allclose(method.dense_queue.features[:6], expected, atol=1e-12)


def test_the_queue_may_hold_one_drawn_key_of_each_image():
    method, batch = densecl(dense_negatives="cells", queue_size=600), views()
    with torch.no_grad():
        cells = method.teacher.dense_head(method.teacher.backbone(batch.views[1])[0]).flatten(2)
        cells = cells / cells.norm(dim=1, keepdim=True)  # (6, 10, 49)
    drawn = []
    for step in range(100):
        method.step = step
        method.loss(batch)
        method.dense_queue.advance()
        keys = method.dense_queue.features[6 * step : 6 * step + 6]
        nearest = torch.einsum("nc,ncq->nq", keys, cells).max(1)
        assert torch.allclose(nearest.values, torch.ones(6, dtype=torch.float64), atol=1e-12)
        drawn.append(nearest.indices)
    assert len(torch.stack(drawn).unique()) == 49
    with pytest.raises(UserError, match="model.dense_negatives is 'means'"):
        densecl(dense_negatives="means")


@pytest.mark.parametrize("make", [moco, densecl])
def test_symmetric_is_the_mean_of_both_ways(make):
    batch, plain = views(), TinyBackbone(norm=False)
    swapped = batch._replace(views=batch.views[::-1], records=batch.records[::-1])
    one_way, both = (make(backbone=plain, symmetric=each) for each in (False, True))
    expected = (one_way.loss(batch)["loss"] + one_way.loss(swapped)["loss"]) / 2
    assert abs(both.loss(both.augment(batch))["loss"] - expected).item() < 1e-12

    with torch.no_grad():
        keys = [both.teacher.head(both.teacher.backbone(view)[0]) for view in batch.views[::-1]]
    both = make(backbone=plain, symmetric=True)
    both.train_step(batch, optimizer_for(both))
    assert torch.allclose(both.queue.features[:12], torch.cat([*map(rows, keys)]), atol=1e-12)


@pytest.mark.slow
def test_accumulation_equals_one_large_batch_without_batch_norm():
    """Four micro-batches of 8 and one of 32: same student, teacher and queues."""
    states = []
    for accumulation in (1, 4):
        torch.manual_seed(1)
        method = densecl(backbone=TinyBackbone(norm=False), queue_size=50)
        wrapper = optimizer_for(method, accumulation)
        for step in range(3):
            method.train_step(views(size=32, seed=step), wrapper)
        assert method.step == 3
        states.append(method.state_dict())
    for name, value in states[0].items():
        assert torch.allclose(value.double(), states[1][name].double(), atol=1e-6), name


def test_heads_have_equal_parameter_counts_and_the_papers_start():
    head, dense = GlobalHead(512), DenseHead(512)
    count = [sum(p.numel() for p in module.parameters()) for module in (head, dense)]
    assert count[0] == count[1]
    assert head.mlp[0].bias.abs().max() == 0
    assert head.mlp[0].weight.std().item() == pytest.approx(math.sqrt(2 / 512), rel=0.02)
    assert GlobalHead(512, ()).mlp[0].out_features == 128


def test_queue_size_follows_the_data():
    for images, expected in [(170, 32), (1024, 256), (15200, 2048), (1281167, 65536), (3, 1)]:
        assert MoCo.resolve(dict(), images)["queue_size"] == expected
    assert MoCo.resolve(dict(queue_size=100), 50)["queue_size"] == 100


def test_a_queue_longer_than_the_data_is_warned_about():
    assert any("queue of 37" in line for line in moco().warnings(40))
    assert not any("queue" in line for line in moco().warnings(1000))


GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.slow
@pytest.mark.parametrize("make", [moco, densecl])
def test_twenty_steps_repeat_the_golden_losses(make):
    """A change of these numbers is a change of the method: say why, then store the new ones."""
    method = make(momentum=0.9, queue_size=64)
    wrapper = optimizer_for(method, lr=0.05)
    losses = [
        method.train_step(views(size=8, seed=step), wrapper)["loss"].item() for step in range(20)
    ]
    stored = json.loads((GOLDEN / f"{make.__name__}.json").read_text())
    assert losses == pytest.approx(stored, abs=1e-6)
