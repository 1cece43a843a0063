"""Two processes (gloo) are one process on the concatenated batch, for every gathering method."""

from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from densessl.engine.optim import PretrainDDP
from densessl.models import (
    BYOL,
    NNCLR,
    BarlowTwins,
    MoCoV3,
    SimCLR,
    SimSiam,
    TimmBackbone,
    VICReg,
)
from densessl.models.distributed import gather, gather_with_grad
from tests.models.checks import PLAIN_HEAD, PLAIN_PREDICTOR
from tests.models.test_amdim import amdim
from tests.models.test_cmc import cmc, split
from tests.models.test_cpc import cpc
from tests.models.test_dim import dim
from tests.models.test_instdisc import IMAGES, instdisc
from tests.models.test_pirl import pirl
from tests.models.tiny import TinyBackbone, build, optimizer_for, views

DENSE_HEAD = dict(type="DenseHead", hidden_channels=(16,), out_channels=10)
DENSE = dict(type="DenseBranch", head=DENSE_HEAD)
NEAREST = dict(DENSE, match=dict(type="LocationMatch", num_pairs=9))
PREDICTED = dict(DENSE, predictor=DENSE_HEAD)
TRIPLET = dict(type="BatchHardTriplet", margin=1.0)
PREDICTS = dict(predictor=PLAIN_PREDICTOR)


def two_view(kind, **options):
    """A method without BatchNorm, which would see the batch of its own process only."""
    return lambda: build(kind, PLAIN_HEAD, backbone=TinyBackbone(norm=False), **options)


def other(make, **options):
    return lambda: make(backbone=TinyBackbone(norm=False), **options)


# What makes the method, and its views. MoCo and DenseCL are in tests/test_distributed.py.
METHODS = {
    "SimCLR": (two_view(SimCLR), 2),
    "triplet": (two_view(SimCLR, loss=TRIPLET), 2),
    "triplet, dense": (two_view(SimCLR, loss=TRIPLET, dense=NEAREST), 2),
    "BarlowTwins": (two_view(BarlowTwins), 2),
    "VICReg": (two_view(VICReg), 2),
    "BYOL": (two_view(BYOL, **PREDICTS, momentum=0.9), 2),
    "MoCoV3": (two_view(MoCoV3, **PREDICTS, momentum=0.9), 2),
    "SimSiam": (two_view(SimSiam, **PREDICTS), 2),
    "NNCLR": (two_view(NNCLR, **PREDICTS, queue_size=20), 2),
    "SimCLR, dense": (two_view(SimCLR, dense=NEAREST), 2),
    "BarlowTwins, dense": (two_view(BarlowTwins, dense=DENSE), 2),
    "VICReg, dense": (two_view(VICReg, dense=NEAREST), 2),
    "BYOL, dense": (two_view(BYOL, **PREDICTS, dense=PREDICTED), 2),
    "MoCoV3, dense": (two_view(MoCoV3, **PREDICTS, dense=PREDICTED), 2),
    "nce": (other(instdisc), 1),
    "infonce": (other(instdisc, objective="infonce"), 1),
    "full": (other(instdisc, objective="full"), 1),
    "pirl": (other(pirl), 10),
    "cmc": (lambda: cmc(split(norm=False)), 1),
    "cpc": (other(cpc, directions=2), 16),
    "dim": (lambda: dim(norm=False), 1),
    "dim_dv": (lambda: dim(norm=False, estimator="dv"), 1),
    "dim_infonce": (lambda: dim(norm=False, estimator="infonce", global_weight=0.5, grid=7), 1),
    "amdim": (lambda: amdim(norm=False), 2),
}
WORLD = 2


def trained(name: str, rank: int | None) -> dict[str, torch.Tensor]:
    """The state after two steps; ``rank`` sees its part of each batch, None all of it."""
    make, count = METHODS[name]
    torch.manual_seed(0)
    method = make()
    method.total_steps = 2
    wrapper = optimizer_for(method, lr=0.02)
    model = method if rank is None else PretrainDDP(method)
    for step in range(2):
        batch = views(size=8, seed=step, count=count)
        batch = batch._replace(index=torch.randperm(IMAGES)[:8])
        model.train_step(batch if rank is None else batch.chunk(WORLD)[rank], wrapper)
    return method.state_dict()


def steps_of_a_timm_model() -> int:
    """Two steps of a network with layers that make no map, and get no gradient."""
    backbone = TimmBackbone("mobilenetv3_small_050")
    method = build(SimSiam, PLAIN_HEAD, PLAIN_PREDICTOR, backbone=backbone)
    model, wrapper = PretrainDDP(method), optimizer_for(method)
    for step in range(2):
        model.train_step(views(size=4, side=32, seed=step), wrapper)
    return method.step


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD
    )
    results = {name: trained(name, rank) for name in METHODS}

    torch.manual_seed(rank)
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    everyone = gather_with_grad(x)
    # Each rank wants something else of the whole.
    ((rank + 1) * everyone.square()).sum().backward()
    results["gather"] = dict(x=x.detach(), everyone=everyone.detach(), grad=x.grad)
    assert not gather(x).requires_grad
    results["timm"] = dict(steps=torch.tensor(steps_of_a_timm_model()))
    torch.save(results, f"{folder}/{rank}.pth")
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


@pytest.mark.slow
def test_layers_that_make_no_map_do_not_stop_the_second_step(ranks):
    assert [rank["timm"]["steps"] for rank in ranks] == [2, 2]


@pytest.mark.slow
def test_gather_with_grad_sums_what_all_ranks_want(ranks):
    results = [rank["gather"] for rank in ranks]
    whole = torch.cat([result["x"] for result in results])
    for result in results:
        assert torch.equal(result["everyone"], whole)
        assert torch.allclose(result["grad"], (1 + 2) * 2 * result["x"])
