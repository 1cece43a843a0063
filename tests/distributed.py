"""What each of two gloo processes does in the tests of distributed training."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from torch import distributed as dist

from densessl.datasets import collate_views
from densessl.engine import BrokenImagesHook
from densessl.engine.optim import PretrainDDP
from densessl.models import DenseCL, DenseHead, GlobalHead, Method, MoCo, ViewPreprocessor
from densessl.models.distributed import BatchShuffle
from densessl.structures import PackedBatch, SampleKey, ViewBatch
from densessl.transforms import MultiView
from tests.models.tiny import TinyBackbone, build, optimizer_for, views

BATCH, STEPS = 8, 2


def method(name: str) -> Method:
    """A float64 method without BatchNorm, whose queue wraps around in the second step."""
    torch.manual_seed(0)
    options = dict(backbone=TinyBackbone(norm=False), queue_size=13, momentum=0.9)
    head, dense_head = GlobalHead(12, (16,), 8), DenseHead(12, (16,), 8)
    if name == "MoCo":
        return build(MoCo, head, **options)
    return build(DenseCL, head, dense_head, grid=3, **options)


def train(model: Method, batches: list[ViewBatch], accumulation: int = 1) -> dict:
    """Trains over ``batches``: the gradients of each step and the state afterwards."""
    method = getattr(model, "module", model)
    wrapper, gradients = optimizer_for(method, accumulation), []
    wrapper.optimizer.register_step_pre_hook(
        lambda *_: gradients.append(
            {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}
        )
    )
    for batch in batches:
        model.train_step(batch, wrapper)
    return dict(gradients=gradients, state=method.state_dict())


def shuffling(rank: int, size: int) -> dict:
    """Shuffles tagged images, computes two outputs of each, restores both at once."""
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(-1, 3, 2, 2) + 100 * rank
    shuffle = BatchShuffle(len(images), seed=3)
    flags = torch.arange(4) % 3 == rank
    seen, bare = shuffle.shuffle(images, flags)
    maps, halves, kept = shuffle.restore(seen * 2, seen.mean((2, 3)).to(torch.bfloat16), bare)
    return dict(images=images, seen=seen, maps=maps, halves=halves, flags=flags, kept=kept)


def teacher_inputs(rank: int, size: int) -> torch.Tensor:
    """The images that this rank's teacher encodes in a step."""
    model, seen = method("DenseCL"), []
    model.teacher.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.loss(model.augment(views(BATCH).chunk(size)[rank]))
    return seen[0]


def raw_views(side: int = 24) -> PackedBatch:
    """A batch as the loader gives it, each image with colours drawn for itself."""
    transform = MultiView(["moco_v2", "byol_2"], size=side)
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)).save(
        file, "png"
    )
    return collate_views(
        [ViewBatch(*transform(file.getvalue(), SampleKey(0, 0, i)), i, -1) for i in range(BATCH)]
    )


def shuffled_bytes(rank: int, size: int) -> ViewBatch:
    """What a rank's method gets of ``raw_views``."""
    model = method("MoCo").float()
    model.data_preprocessor = ViewPreprocessor()
    return model.augment(raw_views().chunk(size)[rank])


def naming(rank: int) -> list[str]:
    """What a rank's log says of broken images: one that both meet, and one of the other's."""

    class Images(list):
        max_broken, problem, path = 1.0, str, str

    said = []
    runner = SimpleNamespace(
        train_dataloader=SimpleNamespace(dataset=Images(range(8))),
        logger=SimpleNamespace(warning=said.append),
    )
    hook, met = BrokenImagesHook(), torch.tensor([3, -1, 6 + rank])
    hook.after_train_iter(runner, 0, SimpleNamespace(index=met, broken=met))
    hook.after_train_epoch(runner)
    return said


def process(rank: int, size: int, folder: str) -> None:
    """Everything one rank does; the results are written below ``folder``."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=size)
    batches = [views(BATCH, seed=step).chunk(size)[rank] for step in range(STEPS)]
    results = dict(shuffling=shuffling(rank, size), teacher_inputs=teacher_inputs(rank, size))
    results["shuffled_bytes"] = shuffled_bytes(rank, size)
    results["naming"] = naming(rank)
    for name in ("MoCo", "DenseCL"):
        for accumulation in (1, 2):
            model = PretrainDDP(method(name))
            results[name, accumulation] = train(model, batches, accumulation)
    torch.save(results, Path(folder) / f"{rank}.pth")
    dist.destroy_process_group()
