"""InstDisc against a plain float64 transcription, and the bank that it shares with others."""

import math

import pytest
import torch

from densessl import pretrain
from densessl.errors import UserError
from densessl.models import InstDisc, MemoryBank
from densessl.models.draws import draw, draw_shared
from tests.models.checks import assert_golden, assert_one_step, assert_same
from tests.models.tiny import TinyBackbone, build, optimizer_for, views
from tests.training import write_config, write_images

TAU, IMAGES, DRAWN = 0.07, 30, 12
HEAD = dict(type="GlobalHead", hidden_channels=(), out_channels=10)


def instdisc(objective="nce", **options):
    drawn = {} if objective == "full" else dict(num_negatives=DRAWN)
    options = {**dict(num_samples=IMAGES, **drawn), **options}
    return build(InstDisc, HEAD, objective=objective, **options)


def one_view(size=6, seed=0):
    batch = views(size=size, count=1, seed=seed)
    return batch._replace(index=torch.randperm(IMAGES)[:size])


def unit(vector):
    return vector / vector.norm()


def reference(method, batch, proximal):
    """The three losses, image by image."""
    bank = method.bank.features
    features = method.head(method.backbone(batch.views[0])[0])
    drawn = draw(IMAGES, DRAWN, method.step, batch.index)
    shared = draw_shared(IMAGES, DRAWN, method.step, drawn.device)
    f = [unit(x) for x in features]
    e = [[torch.exp(v @ x / TAU) for v in bank] for x in f]
    z = IMAGES * torch.stack([e[i][j] for i in range(len(f)) for j in drawn[i]]).mean().detach()
    total = 0
    for i, place in enumerate(batch.index):
        if method.objective == "nce":

            def h(j, i=i):
                return e[i][j] / z / (e[i][j] / z + DRAWN / IMAGES)

            loss = -torch.log(h(place)) - sum(torch.log(1 - h(j)) for j in drawn[i])
        elif method.objective == "infonce":
            loss = -torch.log(e[i][place] / (e[i][place] + sum(e[i][j] for j in shared)))
        else:
            loss = -torch.log(e[i][place] / sum(e[i]))
        total = total + loss + proximal * ((f[i] - bank[place]) ** 2).sum()
    return total / len(f)


@pytest.mark.parametrize("proximal", [0.0, 30.0])
@pytest.mark.parametrize("objective", ["nce", "infonce", "full"])
def test_loss_and_gradient_equal_the_definition(objective, proximal):
    method, batch = instdisc(objective, proximal=proximal), one_view()
    expected = reference(method, batch, proximal)
    assert_same(method, batch, expected)


@pytest.mark.parametrize("objective", ["nce", "infonce", "full"])
def test_one_step_changes_what_it_should_and_nothing_else(objective):
    assert_one_step_moves_the_bank(instdisc(objective), one_view())


def assert_one_step_moves_the_bank(method, batch):
    """By the first view's feature alone; no other buffer stays as it was."""
    with torch.no_grad():
        f = method.head(method.backbone(batch.views[0])[0])
    before = method.bank.features.clone()
    changed = assert_one_step(method, batch)
    assert changed.keys() == dict(method.named_buffers()).keys()
    assert_bank_moved(before, method.bank.features, batch.index, f)


def assert_bank_moved(before, after, index, features):
    """Half of the old entry and half of the image's feature; other entries stay."""
    for place, feature in zip(index, features, strict=True):
        expected = unit(0.5 * before[place] + 0.5 * unit(feature))
        assert torch.allclose(after[place], expected, atol=1e-12)
    others = [j for j in range(IMAGES) if j not in index]
    assert torch.equal(after[others], before[others])


def test_z_is_estimated_once_and_resumed():
    method = instdisc()
    assert method.eval().loss(one_view())["loss"].isfinite() and method.contrast.log_z.isnan()
    assert method.train().loss(one_view())["loss"] == method.loss(one_view())["loss"]
    z = method.contrast.log_z.clone()
    method.loss(one_view(seed=1))
    assert z.isfinite() and method.contrast.log_z == z
    resumed = instdisc(seed=5)
    resumed.load_state_dict(method.state_dict())
    assert resumed.loss(one_view(seed=1))["loss"] == method.loss(one_view(seed=1))["loss"]
    assert resumed.contrast.log_z == z


@pytest.mark.parametrize("objective", ["nce", "infonce", "full"])
def test_accumulation_equals_one_large_batch_without_batch_norm(objective):
    states = []
    for accumulation in (1, 4):
        torch.manual_seed(3)
        method = instdisc(objective, backbone=TinyBackbone(norm=False))
        if objective == "nce":  # else it is estimated from the first micro-batch
            method.contrast.log_z.fill_(math.log(100))
        wrapper = optimizer_for(method, accumulation, lr=0.01)
        for step in range(2):
            method.train_step(one_view(size=16, seed=step), wrapper)
        states.append(method.state_dict())
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], atol=1e-8), name


def test_the_bank_takes_its_size_from_the_data():
    assert InstDisc.resolve(dict(), 70)["num_samples"] == 70
    with pytest.raises(UserError, match="model.num_samples is 100, and the data set has 70"):
        InstDisc.resolve(dict(num_samples=100), 70)


def test_each_objective_draws_as_many_negatives_as_its_paper():
    for objective, count in (("nce", 4096), ("infonce", 65536), ("full", None)):
        assert build(InstDisc, HEAD, IMAGES, objective).num_negatives == count


def test_resuming_with_another_number_of_images_says_so():
    state = instdisc(num_samples=40).state_dict()
    with pytest.raises(UserError, match="data set has changed.*'bank'.*40 images.*now has 30"):
        instdisc().check_resume(state)
    instdisc().check_resume(instdisc().state_dict())


def test_bad_objectives_and_views_are_named():
    with pytest.raises(UserError, match="'full' compares with the whole bank.*num_negatives, 9"):
        instdisc("full", num_negatives=9)
    with pytest.raises(UserError, match="model.objective is 'info_nce'.*did you mean 'infonce'"):
        instdisc("info_nce")
    with pytest.raises(UserError, match="transform.views makes 2"):
        instdisc().loss(views())


def test_bank_is_random_units_and_part_of_the_state():
    bank = MemoryBank(7, 4)
    assert torch.allclose(bank.features.norm(dim=1), torch.ones(7))
    twin = MemoryBank(7, 4, momentum=0.9)
    twin.load_state_dict(bank.state_dict())
    new = torch.eye(4)[:2]
    twin.update(torch.tensor([6, 2]), new)
    for place, f in ((6, new[0]), (2, new[1])):
        expected = unit(0.9 * bank.features[place] + 0.1 * f)
        assert torch.allclose(twin.features[place], expected, atol=1e-6)
    assert torch.equal(twin.features[:2], bank.features[:2])


@pytest.mark.parametrize("objective", ["nce", "infonce", "full"])
def test_twenty_steps_repeat_the_golden_losses(objective):
    assert_golden(
        f"instdisc_{objective}", instdisc(objective), lr=0.05, batches=lambda s: one_view(seed=s)
    )


@pytest.mark.slow
def test_training_and_resuming_through_the_runner(tmp_path):
    images = write_images(tmp_path / "images", 12)
    extra = """
model = dict(
    _delete_=True,
    type="InstDisc",
    backbone=dict(type="TinyNet"),
    head=dict(type="GlobalHead", hidden_channels=(), out_channels=8),
    num_negatives=5,
)
train_dataloader["dataset"]["transform"]["views"] = ["moco_v1"]
"""
    config = write_config(tmp_path / "config.py", images, base="moco", extra=extra)
    checkpoint = pretrain(config, work_dir=tmp_path / "run", train_cfg__max_epochs=1)
    state = torch.load(checkpoint, weights_only=False)["state_dict"]
    assert len(state["bank.features"]) == 12 and state["contrast.log_z"].isfinite()
    (images / "003.jpg").rename(images / "z.jpg")
    with pytest.raises(UserError, match="'bank' has its entries in the order of other images"):
        pretrain(config, work_dir=tmp_path / "run", resume=True)
    write_images(images, 13)
    with pytest.raises(UserError, match="12 images, and train_dataloader.dataset now has 14"):
        pretrain(config, work_dir=tmp_path / "run", resume=True)
