"""The dense branch on every method that takes one, against plain float64 transcriptions."""

import math

import pytest
import torch

from densessl.errors import UserError
from densessl.models import BYOL, BarlowTwins, DenseCL, MoCo, MoCoV3, SimCLR, VICReg
from tests import plain
from tests.models import checks
from tests.models.test_byol import teacher_away
from tests.models.test_pixpro import places
from tests.models.tiny import build, views

DENSE = dict(type="DenseHead", hidden_channels=(16,), out_channels=6, norm=True)
TAU, LAMBDA = 0.2, 0.3
FEATURE, BEST, LOCATION, NEAREST = (
    dict(type="FeatureMatch"),
    dict(type="FeatureMatch", num_pairs=5),
    dict(type="LocationMatch"),
    dict(type="LocationMatch", num_pairs=5),
)
MATCHES = pytest.mark.parametrize("match", [FEATURE, BEST, LOCATION, NEAREST])


def make(kind, match=FEATURE, dense=None, **options):
    branch = dict(type="DenseBranch", head=DENSE, loss_lambda=LAMBDA, match=match)
    if kind in (BYOL, MoCoV3):
        options = dict(predictor=checks.PREDICTOR, **options)
        branch["predictor"] = DENSE
    if kind is MoCo:
        options = dict(queue_size=20, temperature=TAU, **options)
    return build(kind, checks.HEAD, dense={**branch, **(dense or {})}, **options)


def small(seed=0):
    """Four images, maps of 4 x 4 cells."""
    return views(size=4, side=16, seed=seed)


def pairs_of(match, maps, records, b):
    """Pairs (i, j) of image b, from the definition of each correspondence."""
    if match["type"] == "FeatureMatch":
        one, two = ([plain.unit(c) for c in m[b].detach().flatten(1).T] for m in maps)
        apart = [[(p - q).norm().item() for q in two] for p in one]
    else:
        one, two = (places(record, b, 4)[0] for record in records)
        apart = [[math.dist(p, q) for q in two] for p in one]
    nearest = [(min(row), i, row.index(min(row))) for i, row in enumerate(apart)]
    kept = sorted(nearest)[: match.get("num_pairs", len(nearest))]
    return [(i, j) for _, i, j in kept]


def rows(match, maps, records, queries, keys):
    """The embeddings of all pairs of all images, one row a pair, and image and cell of each key."""
    pairs = [(b, *pair) for b in range(4) for pair in pairs_of(match, maps, records, b)]
    key_cells = [(b, j) for b, _, j in pairs]
    return (
        torch.stack([queries[b].flatten(1)[:, i] for b, i, _ in pairs]),
        torch.stack([keys[b].flatten(1)[:, j] for b, j in key_cells]),
        key_cells,
    )


def encoded(network, batch):
    maps = [network.backbone(view)[0] for view in batch.views]
    return maps, [network.head(m) for m in maps]


@MATCHES
@pytest.mark.parametrize(
    "kind,compare",
    [
        (BarlowTwins, lambda a, b, *_: plain.barlow_twins(a, b, 0.0051)),
        (VICReg, lambda a, b, *_: plain.vicreg(a, b)),
    ],
)
def test_two_view_methods_equal_their_definition(kind, compare, match):
    method, batch = make(kind, match), small()
    maps, z = encoded(method, batch)
    cells = [method.dense_head(m) for m in maps]
    forth = compare(*rows(match, maps, batch.records, *cells))
    back = compare(*rows(match, maps[::-1], batch.records[::-1], *cells[::-1]))
    checks.assert_same(method, batch, 0.7 * compare(*z) + 0.3 * (forth + back) / 2)


@pytest.mark.parametrize(
    "loss,compare",
    [
        (dict(type="NTXent"), lambda a, b, cell=None: plain.nt_xent(a, b, 0.1, cell)),
        (
            dict(type="BatchHardTriplet"),
            lambda a, b, c=None: plain.batch_hard_triplet(a, b, 0.3, c),
        ),
    ],
)
def test_simclr_sends_the_cells_of_both_views_through_the_head_as_one_batch(loss, compare):
    method, batch = make(SimCLR, BEST, loss=loss), small()
    maps = method.backbone(torch.cat(batch.views))[0]
    z, cells = method.head(maps).chunk(2), method.dense_head(maps).chunk(2)
    maps = maps.chunk(2)
    there = rows(BEST, maps, batch.records, *cells)
    assert len({*there[2]}) < len(there[2]), "some cells are keys of several others"
    back = rows(BEST, maps[::-1], batch.records[::-1], *cells[::-1])
    expected = 0.7 * compare(*z) + 0.3 * (compare(*there) + compare(*back)) / 2
    checks.assert_same(method, batch, expected)


def byol_like(p, k, cell=None):
    return 2 + 2 * plain.negative_cosine(p, k)


def mocov3_like(p, k, cell=None):
    p, k = ([plain.unit(row) for row in x] for x in (p, k))
    return 2 * TAU * plain.batch_nce(p, k, TAU, group=cell)


@MATCHES
@pytest.mark.parametrize("kind,compare", [(BYOL, byol_like), (MoCoV3, mocov3_like)])
def test_methods_with_a_predictor_equal_their_definition(kind, compare, match):
    options = dict(temperature=TAU) if kind is MoCoV3 else {}
    method, batch = teacher_away(make(kind, match, **options)), small()
    maps, z = encoded(method, batch)
    key_maps, k = encoded(method.teacher, batch)
    p = [method.predictor(x) for x in z]
    cells = [method.dense_predictor(method.dense_head(m)) for m in maps]
    keys = [method.teacher.dense_head(m) for m in key_maps]
    dense = 0
    for one, two in ((0, 1), (1, 0)):
        matched, records = (maps[one], key_maps[two]), (batch.records[one], batch.records[two])
        dense = dense + compare(*rows(match, matched, records, cells[one], keys[two]))
    expected = 0.7 * (compare(p[0], k[1]) + compare(p[1], k[0])) + 0.3 * dense
    checks.assert_same(method, batch, expected)


@MATCHES
def test_moco_equals_its_definition(match):
    method, batch = teacher_away(make(MoCo, match)), small()
    query_map, key_map = (
        net.backbone(view)[0]
        for net, view in zip((method, method.teacher), batch.views, strict=True)
    )

    def nce(query, key, *rest):
        queue = rest[-1]
        terms = []
        for q, k in zip(query, key, strict=True):
            q, k = plain.unit(q), plain.unit(k)
            terms.append(plain.softmax_nll([q @ x / TAU for x in (k, *queue)], 0))
        return sum(terms) / len(terms)

    whole = nce(method.head(query_map), method.teacher.head(key_map), method.queue.features)
    cells = method.dense_head(query_map), method.teacher.dense_head(key_map)
    pairs = rows(match, (query_map, key_map), batch.records, *cells)
    checks.assert_same(method, batch, 0.7 * whole + 0.3 * nce(*pairs, method.dense_queue.features))


def test_moco_with_the_branch_is_densecl():
    branch = make(MoCo, dense=dict(grid=3))
    densecl = build(
        DenseCL,
        checks.HEAD,
        DENSE,
        queue_size=20,
        temperature=TAU,
        grid=3,
        loss_lambda=LAMBDA,
    )
    states = branch.state_dict(), densecl.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert branch.loss(views())["loss"] == densecl.loss(views())["loss"]


@pytest.mark.parametrize("kind", [MoCo, BYOL, MoCoV3, BarlowTwins, VICReg, SimCLR])
def test_one_step_changes_what_it_should_and_nothing_else(kind):
    options = dict(momentum=0.9) if kind in (MoCo, BYOL, MoCoV3) else {}
    method = make(kind, **options)
    changed = checks.assert_one_step(method, small(), momentum=0.9)
    queues = {"queue", "dense_queue"} if kind is MoCo else set()
    assert {name.split(".")[0] for name in changed if "queue" in name} == queues
    rest = [name for name in changed if "queue" not in name]
    assert all(".running_" in name or name.endswith("tracked") for name in rest), rest
    assert any(name.startswith("dense_head.") for name in rest)


@pytest.mark.slow
@pytest.mark.parametrize("kind,name", [(BYOL, "byol_dense"), (VICReg, "vicreg_dense")])
def test_twenty_steps_repeat_the_golden_losses(kind, name):
    checks.assert_golden(name, make(kind, NEAREST), batches=small)


def test_the_log_shows_both_losses_and_what_was_matched():
    figures = make(BYOL).loss(small())
    expected = 0.7 * figures["global"] + 0.3 * figures["dense"]
    assert figures["loss"].item() == pytest.approx(expected.item(), abs=1e-12)
    assert 0 <= figures["match_agreement"] <= 1 and 0 < figures["match_chance"] <= 1
    assert figures["lambda"].item() == LAMBDA
    waiting = make(BarlowTwins, NEAREST, dense=dict(warmup_steps=2))
    figures = waiting.loss(small())
    assert figures["loss"] == figures["global"] and figures["lambda"] == 0
    waiting.step = 2
    assert waiting.loss(small())["lambda"].item() == LAMBDA


def test_the_logged_distance_is_in_diagonals_of_the_key_views_cells():
    batch = small()
    expected = 0
    for one, two in (batch.records, batch.records[::-1]):
        for b in range(4):
            (centers, _), (others, diagonal) = places(one, b, 4), places(two, b, 4)
            pairs = pairs_of(NEAREST, None, (one, two), b)
            apart = sum(math.dist(centers[i], others[j]) for i, j in pairs) / len(pairs)
            expected += apart / diagonal / 8
    found = make(VICReg, NEAREST).loss(batch)["match_distance"].item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_mistakes_name_the_key():
    with pytest.raises(UserError, match="BYOL needs model.dense.predictor"):
        make(BYOL, dense=dict(predictor=None))
    with pytest.raises(UserError, match="VICReg has no predictor.*model.dense.predictor"):
        make(VICReg, dense=dict(predictor=DENSE))
    with pytest.raises(UserError, match="match.num_pairs is 17, and a view has 16 cells"):
        make(VICReg, dict(LOCATION, num_pairs=17)).loss(small())
