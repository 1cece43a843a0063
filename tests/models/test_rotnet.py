"""RotNet against a plain float64 transcription of its definition."""

import pytest
import torch

from densessl.errors import UserError
from densessl.models import RotNet
from tests.models.checks import assert_golden, assert_one_step, assert_same
from tests.models.tiny import build, views

HEAD = dict(type="GlobalHead", hidden_channels=(), out_channels=4)


def rotnet():
    return build(RotNet, HEAD)


def test_loss_and_gradient_equal_the_definition():
    method, batch = rotnet(), views(size=5, side=9, count=1)
    turned, labels = [], []
    for image in batch.views[0]:
        for turns in range(4):
            # A quarter turn counter-clockwise: rows of the result are columns from the right.
            turned.append(image)
            labels.append(turns)
            image = torch.stack([image[:, :, 8 - i] for i in range(9)], dim=1)
    logits = method.head(method.backbone(torch.stack(turned))[0])
    terms = [
        -torch.log(row[label].exp() / row.exp().sum())
        for row, label in zip(logits, labels, strict=True)
    ]
    figures = method.loss(batch)
    assert_same(method, batch, sum(terms) / 20)
    right = sum(int(row.argmax()) == label for row, label in zip(logits, labels, strict=True))
    assert figures["accuracy"].item() == pytest.approx(right / 20)


def test_one_step_moves_backbone_and_head():
    method = rotnet()
    changed = assert_one_step(method, views(count=1))
    assert changed.keys() == dict(method.named_buffers()).keys()


def test_two_views_are_refused():
    with pytest.raises(UserError, match="RotNet needs 1 view .*transform.views makes 2"):
        rotnet().loss(views())


def test_twenty_steps_repeat_the_golden_losses():
    assert_golden("rotnet", rotnet(), lr=0.05, batches=lambda step: views(count=1, seed=step))
