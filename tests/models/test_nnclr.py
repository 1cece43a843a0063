import pytest
import torch

from densessl.models import NNCLR
from tests import plain
from tests.models import checks
from tests.models.tiny import build, views


def nnclr(head=checks.HEAD, predictor=checks.PREDICTOR, **options):
    return build(NNCLR, head, predictor, **dict(dict(queue_size=37), **options))


def unit_rows(x):
    return torch.stack([plain.unit(row) for row in x])


def test_nnclr_equals_its_definition():
    method, batch = nnclr(), views()
    z1, z2 = (method.head(method.backbone(view)[0]) for view in batch.views)
    p1, p2 = unit_rows(method.predictor(z1)), unit_rows(method.predictor(z2))

    def neighbours(z):
        queue = method.queue.features
        return [max(queue, key=lambda entry, q=q: entry @ q) for q in unit_rows(z.detach())]

    forth = plain.batch_nce(neighbours(z1), p2, 0.1)
    back = plain.batch_nce(neighbours(z2), p1, 0.1)
    checks.assert_same(method, batch, (forth + back) / 2)


def test_one_step_changes_what_it_should_and_nothing_else():
    method, batch = nnclr(), views()
    with torch.no_grad():
        z1 = unit_rows(method.head(method.backbone(batch.views[0])[0]))
    changed = checks.assert_one_step(method, batch)
    of_queue = {name for name in changed if name.startswith("queue")}
    assert of_queue == {"queue.features", "queue.pointer"}
    assert torch.allclose(method.queue.features[:6], z1, atol=1e-12)
    assert changed["queue.features"][6:].abs().max() == 0 and method.queue.pointer == 6
    rest = set(changed) - of_queue
    assert all(".running_" in name or name.endswith("tracked") for name in rest), rest


def test_neighbours_are_read_before_the_batch_is_enqueued():
    method, batch = nnclr(queue_size=6), views()
    assert method.loss(batch)["loss"] == method.loss(batch)["loss"]


def test_queue_size_follows_the_data():
    assert NNCLR.resolve(dict(), 1281167)["queue_size"] == 98304
    assert NNCLR.resolve(dict(), 128)["queue_size"] == 32
    assert any("queue of 37" in line for line in nnclr().warnings(40))


def test_lightly_finds_the_same_neighbours():
    modules = pytest.importorskip("lightly.models.modules")
    method = nnclr()
    bank = modules.NNMemoryBankModule(size=(37, 10))
    bank.bank, bank.bank_ptr = method.queue.features.clone(), torch.zeros(1, dtype=torch.long)
    query = torch.randn(6, 10, dtype=torch.float64)
    assert torch.allclose(method.queue.nearest(query), bank(query, update=False))


def test_twenty_steps_repeat_the_golden_losses():
    checks.assert_golden("nnclr", nnclr())


def test_bad_input_and_the_log():
    checks.assert_wants_two_views(nnclr())
    checks.assert_healthy_figures(nnclr().loss(views()))
