"""Two processes (gloo) are one process on the concatenated batch: same gradient, same bank."""

from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from densessl.engine.optim import PretrainDDP
from tests.models.test_amdim import amdim
from tests.models.test_cmc import cmc, split
from tests.models.test_cpc import cpc
from tests.models.test_dim import dim
from tests.models.test_instdisc import instdisc
from tests.models.test_pirl import pirl
from tests.models.tiny import TinyBackbone, optimizer_for, views

WORLD = 2


def plain(make, **options):
    """A method without BatchNorm, which would see the batch of its own process only."""
    return lambda: make(backbone=TinyBackbone(norm=False), **options)


METHODS = {
    "nce": (plain(instdisc), 1),
    "infonce": (plain(instdisc, objective="infonce"), 1),
    "full": (plain(instdisc, objective="full"), 1),
    "pirl": (plain(pirl), 10),
    "cmc": (lambda: cmc(split(norm=False)), 1),
    "cpc": (plain(cpc, directions=2), 16),
    "dim": (lambda: dim(norm=False), 1),
    "dim_dv": (lambda: dim(norm=False, estimator="dv"), 1),
    "amdim": (lambda: amdim(norm=False), 2),
}


def trained(name: str, rank: int | None) -> dict[str, torch.Tensor]:
    """The state after two steps; ``rank`` sees its part of each batch, None all of it."""
    make, count = METHODS[name]
    torch.manual_seed(0)
    method = make()
    wrapper = optimizer_for(method, lr=0.02)
    model = method if rank is None else PretrainDDP(method)
    for step in range(2):
        batch = views(size=8, seed=step, count=count)
        batch = batch._replace(index=torch.randperm(30)[:8])
        model.train_step(batch if rank is None else batch.chunk(WORLD)[rank], wrapper)
    return method.state_dict()


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD
    )
    torch.save({name: trained(name, rank) for name in METHODS}, f"{folder}/{rank}.pth")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    """What each of two processes ends with, for every method."""
    folder = Path(tmp_path_factory.mktemp("ranks"))
    multiprocessing.spawn(_rank, args=(str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pth") for rank in range(WORLD)]


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_equal_one_on_the_whole_batch(ranks, name):
    alone = trained(name, None)
    for state in (rank[name] for rank in ranks):
        assert state.keys() == alone.keys()
        for key, value in alone.items():
            assert torch.allclose(state[key].double(), value.double(), atol=1e-6, rtol=0), key
