import logging
import math

import pytest
import torch
from mmengine.registry import DefaultScope

from densessl.engine import HoldableCosineLR, PretrainLoop, PretrainRunner
from densessl.engine.config import load_config
from densessl.engine.schedule import check_schedules
from densessl.errors import UserError


def test_groups_with_fix_lr_keep_their_rate_and_the_others_follow_the_cosine():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [dict(params=[weights[0]]), dict(params=[weights[1]], fix_lr=True)]
    optimizer = torch.optim.SGD(groups, lr=0.4)
    scheduler = HoldableCosineLR(optimizer, T_max=10)
    for step in range(1, 11):
        optimizer.step()
        scheduler.step()
        free, held = (group["lr"] for group in optimizer.param_groups)
        assert free == pytest.approx(0.2 * (1 + math.cos(math.pi * step / 10)), abs=1e-12)
        assert held == 0.4


@pytest.mark.parametrize(
    "name",
    [
        "barlowtwins/barlowtwins_r50_8xb256-coslr-1000e_in1k.py",
        "byol/byol_r50_16xb256-coslr-1000e_in1k.py",
        "mocov3/mocov3_vit-small_16xb256-coslr-300e_in1k.py",
        "pixpro/pixpro_r50_8xb128-coslr-100e_in1k.py",
        "simclr/simclr_r18_1xb64-coslr-100e_folder.py",
        "simsiam/simsiam_r50_8xb32-coslr-100e_in1k.py",
    ],
)
def test_max_epochs_alone_moves_the_end_of_the_cosine(name):
    """At the last of 45 epochs the rate is nearly nothing: the cosine is at its end."""
    cfg = load_config(name, {"train_cfg.max_epochs": 45})
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedulers = build_schedulers(cfg, sgd, epoch_length=4)
    rates = []
    for step in range(1, 45 * 4 + 1):
        sgd.step()
        for scheduler in schedulers:
            if not scheduler.by_epoch or step % 4 == 0:
                scheduler.step()
        rates.append(sgd.param_groups[0]["lr"])
    assert max(rates) == pytest.approx(1.0, abs=0.05)
    assert rates[-1] < 0.01


def build_schedulers(cfg, optimizer, epoch_length):
    """As a runner of that many steps an epoch builds them."""
    loop, runner = PretrainLoop.__new__(PretrainLoop), PretrainRunner.__new__(PretrainRunner)
    loop._max_epochs, loop.dataloader = cfg.train_cfg.max_epochs, range(epoch_length)
    runner._train_loop, runner.logger = loop, logging.getLogger(__name__)
    with DefaultScope.overwrite_default_scope("densessl"):
        return runner._build_param_scheduler(cfg.param_scheduler, optimizer)


def test_a_warm_up_longer_than_training_is_refused():
    options = {"train_cfg.max_epochs": 10}
    cfg = load_config("byol/byol_r50_16xb256-coslr-1000e_in1k.py", options)
    with pytest.raises(UserError, match="max_epochs is 10, and param_scheduler.1.*at epoch 10"):
        check_schedules(cfg)
    cfg.train_cfg.max_epochs = 11
    check_schedules(cfg)
