import math

import pytest
import torch

from densessl.engine import HoldableCosineLR


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
