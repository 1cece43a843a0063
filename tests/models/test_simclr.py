import pytest
import torch

from densessl.errors import UserError
from densessl.models import SimCLR
from tests import plain
from tests.models import checks
from tests.models.tiny import build, views


def simclr(**options):
    return build(SimCLR, dict(checks.HEAD, last_norm="bn_no_shift"), **options)


def test_simclr_equals_its_definition():
    method, batch = simclr(), views()
    z1, z2 = method.head(method.backbone(torch.cat(batch.views))[0]).chunk(2)
    checks.assert_same(method, batch, plain.nt_xent(z1, z2, 0.1))


def test_with_the_triplet_loss_it_is_triplet_learning():
    method, batch = simclr(loss=dict(type="BatchHardTriplet", margin=0.8)), views()
    z1, z2 = method.head(method.backbone(torch.cat(batch.views))[0]).chunk(2)
    checks.assert_same(method, batch, plain.batch_hard_triplet(z1, z2, 0.8))


def test_one_step_changes_what_it_should_and_nothing_else():
    changed = checks.assert_one_step(simclr(), views())
    assert all(".running_" in name or name.endswith("tracked") for name in changed), changed


@pytest.mark.slow
def test_twenty_steps_repeat_the_golden_losses():
    checks.assert_golden("simclr", simclr())
    checks.assert_golden("triplet", simclr(loss=dict(type="BatchHardTriplet")))


def test_bad_input_and_the_log():
    checks.assert_wants_two_views(simclr())
    batch = views()
    with pytest.raises(UserError, match="have 28 and 16 pixels"):
        simclr().loss(batch._replace(views=(batch.views[0], batch.views[1][..., :16, :16])))
    checks.assert_healthy_figures(simclr().loss(views()))
