import pytest

from densessl.models import BarlowTwins, VICReg
from tests import plain
from tests.models import checks
from tests.models.tiny import build, views


def barlow_twins(**options):
    return build(BarlowTwins, dict(checks.HEAD, bias=False), **options)


def vicreg(**options):
    return build(VICReg, checks.HEAD, **options)


BOTH = pytest.mark.parametrize("make", [barlow_twins, vicreg])


@pytest.mark.parametrize(
    "make,expected,options",
    [
        (barlow_twins, plain.barlow_twins, dict(lambd=0.0051)),
        (vicreg, plain.vicreg, dict(sim_weight=25, var_weight=25, cov_weight=1)),
    ],
)
def test_it_equals_its_definition(make, expected, options):
    method, batch = make(), views()
    z1, z2 = (method.head(method.backbone(view)[0]) for view in batch.views)
    checks.assert_same(method, batch, expected(z1, z2, **options))


@BOTH
def test_one_step_changes_what_it_should_and_nothing_else(make):
    changed = checks.assert_one_step(make(), views())
    assert all(".running_" in name or name.endswith("tracked") for name in changed), changed


@pytest.mark.slow
@BOTH
def test_twenty_steps_repeat_the_golden_losses(make):
    checks.assert_golden(make.__name__, make())


@BOTH
def test_bad_input_and_the_log(make):
    checks.assert_wants_two_views(make())
    checks.assert_healthy_figures(make().loss(views()))
