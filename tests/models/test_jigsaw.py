"""Jigsaw against a plain float64 transcription of its definition, and its choice of orders."""

from itertools import permutations

import pytest
import torch

from densessl.errors import UserError
from densessl.models import Jigsaw
from densessl.models.draws import draw
from densessl.models.patches import distant_permutations
from tests.models.checks import assert_golden, assert_one_step, assert_same
from tests.models.tiny import build, views

HEAD = dict(type="GlobalHead", hidden_channels=(), out_channels=7, last_norm="bn")
ORDERS = 20


def jigsaw(**options):
    return build(Jigsaw, HEAD, **{**dict(num_permutations=ORDERS, num_patches=4), **options})


def tiles(size=5, seed=0):
    return views(size=size, side=12, count=4, seed=seed)


def test_loss_and_gradient_equal_the_definition():
    method, batch = jigsaw(), tiles()
    method.step = 3
    labels = draw(ORDERS, 1, 3, batch.index)[:, 0].tolist()
    assert len(set(labels)) > 1
    # The tiles themselves are put in order here, then encoded.
    mixed = []
    for i, label in enumerate(labels):
        mixed += [batch.views[k][i] for k in method.permutations[label]]
    encoded = torch.relu(method.head(method.backbone(torch.stack(mixed))[0])).view(5, 28)
    logits = method.classifier(encoded)
    terms = [
        -torch.log(row[label].exp() / row.exp().sum())
        for row, label in zip(logits, labels, strict=True)
    ]
    figures = method.loss(batch)
    assert_same(method, batch, sum(terms) / 5)
    right = sum(int(row.argmax()) == label for row, label in zip(logits, labels, strict=True))
    assert figures["accuracy"].item() == pytest.approx(right / 5)


def test_the_seed_chooses_the_orders():
    for seed in (0, 1):
        method = build(Jigsaw, HEAD, ORDERS, 4, seed)
        assert torch.equal(method.permutations, distant_permutations(ORDERS, 4, seed))


def test_one_step_moves_all_but_the_orders():
    method = jigsaw()
    changed = assert_one_step(method, tiles())
    assert dict(method.named_buffers()).keys() - changed.keys() == {"permutations"}


def test_orders_are_part_of_the_state():
    method, other = jigsaw(), jigsaw()
    method.permutations.copy_(distant_permutations(ORDERS, 4, seed=1))
    assert not torch.equal(method.permutations, other.permutations)
    other.load_state_dict(method.state_dict())
    assert torch.equal(method.permutations, other.permutations)


def test_orders_are_chosen_greedily_by_mean_hamming_distance():
    chosen = distant_permutations(24, 5, seed=0).tolist()
    everything = [list(p) for p in permutations(range(5))]
    for count in range(1, 24):
        before = chosen[:count]

        def mean_distance(p, before=before):
            return sum(a != b for q in before for a, b in zip(p, q, strict=True)) / len(before)

        free = [p for p in everything if p not in before]
        assert chosen[count] in free
        assert mean_distance(chosen[count]) == max(map(mean_distance, free))


def test_orders_depend_on_the_seed_alone_and_may_be_all_there_are():
    one, two, other = (distant_permutations(10, 4, seed) for seed in (5, 5, 6))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert len(distant_permutations(24, 4, 0).unique(dim=0)) == 24
    nine = distant_permutations(50, 9, 0)
    assert torch.equal(nine.sort(1).values, torch.arange(9).expand(50, -1))
    distances = (nine[:, None] != nine).sum(2).double()
    assert distances.sum() / (50 * 49) > 8.1  # random ones have 8


def test_more_orders_than_there_are_are_refused():
    with pytest.raises(UserError, match="model.num_permutations is 362881; 9 tiles have 362880"):
        jigsaw(num_permutations=362881, num_patches=9)
    with pytest.raises(UserError, match="model.num_patches is 16"):
        jigsaw(num_patches=16)
    for wrong in (2.5, "many"):
        with pytest.raises(UserError, match=f"model.num_permutations is {wrong!r}"):
            jigsaw(num_permutations=wrong)
    with pytest.raises(ValueError, match="25 permutations of 4"):
        distant_permutations(25, 4, 0)


def test_views_without_tiles_are_refused():
    with pytest.raises(UserError, match="Jigsaw needs 4 views.*transform.views makes 2"):
        jigsaw().loss(views())


def test_twenty_steps_repeat_the_golden_losses():
    assert_golden("jigsaw", jigsaw(), lr=0.05, batches=lambda step: tiles(seed=step))
