"""PIRL against a plain float64 transcription of its definition."""

import pytest
import torch

from densessl.engine.config import load_config
from densessl.errors import UserError
from densessl.models import PIRL
from densessl.models.draws import draw_shared
from densessl.registry import TRANSFORMS
from densessl.structures import ViewBatch
from tests.models.checks import assert_golden, assert_same
from tests.models.test_instdisc import assert_one_step_moves_the_bank, unit
from tests.models.tiny import build, views

TAU, IMAGES, DRAWN = 0.07, 30, 40
HEAD = dict(type="GlobalHead", hidden_channels=(), out_channels=10)


@pytest.mark.parametrize("config", ["r50_8xb32-coslr-800e_in1k", "r18_1xb64-coslr-100e_folder"])
def test_the_recipes_views_are_the_papers(config):
    transform = load_config(f"pirl/pirl_{config}.py").train_dataloader.dataset.transform
    image, patches = TRANSFORMS.build(transform.to_dict()).views_at(epoch=0)
    assert (image.scale, patches.scale) == ((0.08, 1.0), (0.6, 1.0))
    for view in (image, patches):
        assert view.jitter == (0.4, 0.4, 0.4, 0.2) and view.gray_prob == 0.2
        assert (view.jitter_prob, view.flip_prob, view.blur_prob) == (1.0, 0.5, 0.0)


def pirl(**options):
    options = {**dict(num_samples=IMAGES, num_negatives=DRAWN), **options}
    return build(PIRL, HEAD, dict(HEAD, out_channels=7), **options)


def ten_views(size=5, seed=0) -> ViewBatch:
    image = views(size=size, count=1, seed=seed)
    patches = views(size=size, side=12, count=9, seed=seed + 100)
    return ViewBatch(
        image.views + patches.views,
        image.records + patches.records,
        torch.randperm(IMAGES)[:size],
        image.broken,
    )


def reference(method, batch):
    bank = method.bank.features
    drawn = draw_shared(IMAGES, DRAWN, method.step, bank.device)
    images, *patches = batch.views
    features = method.head(method.backbone(images)[0])
    # All patches of all images are one batch of the backbone.
    parts = method.patch_head(method.backbone(torch.cat(patches))[0])
    total, size = 0, len(images)
    for i, place in enumerate(batch.index):
        f = unit(features[i])
        g = unit(method.join(torch.cat([parts[k * size + i] for k in range(9)])))
        negatives = [bank[j] for j in drawn if j != place]
        assert len(negatives) < DRAWN or i
        for embedding in (f, g):
            below = sum(torch.exp(embedding @ v / TAU) for v in negatives)

            def h(v, embedding=embedding, below=below):
                e = torch.exp(embedding @ v / TAU)
                return e / (e + below)

            noise = sum(torch.log(1 - h(v)) for v in negatives)
            total = total + 0.5 * (-torch.log(h(bank[place])) - noise)
    return total / size


def test_loss_and_gradient_equal_the_definition():
    method, batch = pirl(), ten_views()
    assert_same(method, batch, reference(method, batch))


def test_lambda_weighs_the_jigsaw():
    figures = pirl(loss_lambda=0.3).loss(ten_views())
    expected = 0.3 * figures["jigsaw"] + 0.7 * figures["image"]
    assert figures["loss"].item() == pytest.approx(expected.item(), abs=1e-12)


def test_one_step_changes_what_it_should_and_the_bank_holds_the_image_alone():
    assert_one_step_moves_the_bank(pirl(), ten_views())


def test_views_without_patches_are_refused():
    with pytest.raises(UserError, match="PIRL needs 10 views.*transform.views makes 2"):
        pirl().loss(views())


@pytest.mark.slow
def test_twenty_steps_repeat_the_golden_losses():
    assert_golden("pirl", pirl(), lr=0.05, batches=lambda step: ten_views(seed=step))
