"""The same work in mmpretrain and lightly, turn by turn with ours.

Each contestant has a process of its own, as it would in use, and only one works at a time: a busy
machine slows all alike, and nobody's memory or modules weigh on the others. Threads wait passively
in all of them, see ``densessl/__init__.py``.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import torch
from mmengine.config import Config
from PIL import Image

from densessl.benchmark.measure import in_turn, summary
from densessl.benchmark.setup import (
    NUM_IMAGES,
    build_dataset,
    build_method,
    choose_kernels,
    images_per_step,
    recipe,
)
from densessl.benchmark.step import Floor, TrainingStep, cost_of_steps
from densessl.datasets import collate_views
from densessl.engine.optim import resolve_precision
from densessl.registry import MODELS
from densessl.structures import SampleKey

RECIPE = "densecl/densecl_r50_8xb32-coslr-200e_in1k.py"
OURS = ("worker", "whole input", "step")
IMAGES = 200  # of one turn
BATCH = 20  # of them on the device at a time

_built: dict[str, Callable[[], object]] = {}  # in each process what it does in its turn


def compare_data(images: str, rounds: int) -> dict[str, Any]:
    """CPU milliseconds of one image with two views at 224 pixels, on one thread.

    Args:
        images: Folder of JPEG files.
        rounds: Turns of each contestant that count, after one that does not.

    Raises:
        ImportError: If a peer is not installed.
        UserError: If there are no images.
    """
    _need("mmpretrain", "lightly")
    count = min(IMAGES, len(build_dataset(recipe(RECIPE, images))))
    seen = in_turn(_cpu_seconds, PIPELINES, rounds, images)
    spent = {name: [1000 * value / count for value in values] for name, values in seen.items()}
    return dict(images=count, cpu_ms=_summaries(spent), **_ratios(spent))


def compare_step(
    device: str, rounds: int, precision: str | None = None, options: dict | None = None
) -> dict[str, Any]:
    """Seconds and peak memory of a DenseCL step of ResNet-50, beside mmpretrain's.

    On a GPU one contestant comes after the other, so that each has all of its memory, and
    mmpretrain's step runs under bf16 autocast; on a CPU in float32, its default.

    Args:
        device: "cpu" or "cuda".
        rounds: Steps of each that count, after one that does not.
        precision: Ours; None takes the config's.
        options: Of the config. All obey batch size and side, ours and the floor ``compile`` too.

    Raises:
        ImportError: If mmpretrain is not installed.
    """
    _need("mmpretrain")
    cfg = recipe(RECIPE, options=options)
    precision = precision or cfg.optim_wrapper.get("precision", "auto")
    cfg.optim_wrapper.precision = resolve_precision(precision, device)
    works = {name: (make, cfg) for name, make in STEPS.items()}
    seen = cost_of_steps(works, rounds, torch.device(device))
    spent = {name: [seconds for seconds, _ in values] for name, values in seen.items()}
    peak = {name: max(memory for _, memory in values) for name, values in seen.items()}
    return dict(
        images=images_per_step(cfg),
        precision=cfg.optim_wrapper.precision,
        seconds=_summaries(spent),
        peak_mb=peak,
        **_ratios(spent),
        **{"memory step / mmpretrain": peak["step"] / peak["mmpretrain"]},
    )


def _need(*modules: str) -> None:
    for name in modules:
        import_module(name)


def _summaries(spent: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    return {name: summary(values) for name, values in spent.items()}


def _ratios(spent: dict[str, list[float]]) -> dict[str, float]:
    """How many times our time each other one is: the median over the rounds."""
    return {
        f"{name} / {own}": statistics.median(
            theirs / mine for theirs, mine in zip(spent[name], spent[own], strict=True)
        )
        for name in spent
        for own in spent
        if own in OURS and name not in OURS
    }


def _cpu_seconds(name: str, images: str) -> float:
    if name not in _built:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        dataset = build_dataset(recipe(RECIPE, images))
        _built[name] = PIPELINES[name](dataset, range(min(IMAGES, len(dataset))))
    start = time.process_time()
    _built[name]()
    return time.process_time() - start


def _worker(dataset, picked: Sequence[int]) -> Callable[[], object]:
    """What our data worker does with an image."""
    # None is kept, as the peers keep none: memory costs time of its own.
    return lambda: deque((dataset[SampleKey(0, 0, index)] for index in picked), maxlen=0)


def _whole_input(dataset, picked: Sequence[int]) -> Callable[[], object]:
    """That, and what the device does with a batch, here on the CPU."""
    augment = build_method(recipe(RECIPE), torch.device("cpu")).data_preprocessor

    def turn() -> None:
        for start in picked[::BATCH]:
            keys = [SampleKey(0, 0, index) for index in picked[start : start + BATCH]]
            augment(augment.cast_data(collate_views([dataset[key] for key in keys])), True)

    return turn


def _mmpretrain(dataset, picked: Sequence[int]) -> Callable[[], object]:
    """Its two MoCo v2 views of a file, as its DenseCL config makes them."""
    import mmpretrain.datasets
    from mmcv.transforms import Compose
    from mmengine.registry import init_default_scope

    folder = Path(mmpretrain.__file__).parent / ".mim/configs/_base_/datasets"
    init_default_scope("mmpretrain")
    views = Compose(Config.fromfile(folder / "imagenet_bs32_mocov2.py").train_pipeline)

    def turn() -> None:
        for index in picked:
            views(dict(img_path=dataset.path(index), sample_idx=0))

    return turn


def _lightly(dataset, picked: Sequence[int]) -> Callable[[], object]:
    """Its two DenseCL views of a file."""
    from lightly.transforms import DenseCLTransform

    views = DenseCLTransform()

    def turn() -> None:
        for index in picked:
            views(Image.open(dataset.path(index)).convert("RGB"))

    return turn


PIPELINES = {
    "worker": _worker,
    "whole input": _whole_input,
    "mmpretrain": _mmpretrain,
    "lightly": _lightly,
}


def _mmpretrain_step(cfg: Config, device: torch.device) -> Callable[[], object]:
    """A training step of its DenseCL, as its config has it: its code, its matrix of logits."""
    import mmpretrain.models  # noqa: F401
    from mmengine.registry import init_default_scope
    from mmpretrain.registry import MODELS as THEIRS

    choose_kernels(cfg)
    ours = MODELS.get(cfg.model.type).resolve(cfg.model, NUM_IMAGES)
    init_default_scope("mmpretrain")
    neck = dict(in_channels=2048, hid_channels=2048, out_channels=128, num_grid=None)
    head = dict(loss=dict(type="CrossEntropyLoss"), temperature=0.2)
    model = THEIRS.build(
        dict(
            type="DenseCL",
            queue_len=ours["queue_size"],
            feat_dim=128,
            momentum=0.001,
            loss_lambda=0.5,
            backbone=dict(type="ResNet", depth=50, norm_cfg=dict(type="BN")),
            neck=dict(type="DenseCLNeck", **neck),
            head=dict(type="ContrastiveHead", **head),
        )
    ).to(device)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    side = cfg.train_dataloader.dataset.transform.size
    shape = (images_per_step(cfg), 3, side, side)
    views = [torch.randn(shape, device=device) for _ in range(2)]

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = sum(model.loss(views, None).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


STEPS = {
    "step": TrainingStep,
    "floor": partial(Floor, keep_memory=False),  # as PyTorch does by itself
    "mmpretrain": _mmpretrain_step,
}
