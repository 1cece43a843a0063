"""The same work in mmpretrain and lightly, turn by turn with ours: benchmark_peers.py data|step.

Needs both beside densessl: ``pip install --no-build-isolation onedl-mmpretrain lightly``.
"""

import argparse
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import cv2
import torch
from PIL import Image

from densessl.benchmark import recipe, record, table, write
from densessl.benchmark.measure import summary, time_interleaved
from densessl.benchmark.setup import (
    Prepared,
    build_backbone,
    build_dataset,
    build_method,
    build_optimizer,
    synthetic_batch,
)
from densessl.benchmark.step import floor_step
from densessl.datasets import collate_views
from densessl.environment import package_versions
from densessl.errors import UserError
from densessl.structures import SampleKey

RECIPE = "densecl/densecl_r50_8xb32-coslr-200e_in1k.py"
CPU = torch.device("cpu")
GROUP = 100  # images of one turn
BATCH = 20  # of them on the device at a time
INSTALL = "pip install --no-build-isolation onedl-mmpretrain lightly"


Turn = Callable[[int], object]
"""Does the GROUP images from the one with this number on."""


def our_worker(images: str) -> Turn:
    """What a data worker does with an image."""
    dataset = build_dataset(recipe(RECIPE, images))
    # None is kept, as the peers keep none: memory costs time of its own.
    return lambda first: deque((dataset[SampleKey(0, 0, i)] for i in group(first)), maxlen=0)


def our_input(images: str) -> Turn:
    """That, and what the device does with a batch, here on the CPU."""
    cfg = recipe(RECIPE, images)
    dataset = build_dataset(cfg)
    augment = build_method(cfg, CPU).data_preprocessor

    def turn(first: int) -> None:
        for start in group(first)[::BATCH]:
            keys = [SampleKey(0, 0, i) for i in range(start, start + BATCH)]
            augment(augment.cast_data(collate_views([dataset[key] for key in keys])), True)

    return turn


def mmpretrain(images: str) -> Turn:
    """Its two MoCo v2 views of a file, as its DenseCL config makes them."""
    import mmpretrain.datasets
    from mmcv.transforms import Compose
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    folder = Path(mmpretrain.__file__).parent / ".mim/configs/_base_/datasets"
    init_default_scope("mmpretrain")
    views = Compose(Config.fromfile(folder / "imagenet_bs32_mocov2.py").train_pipeline)
    dataset = build_dataset(recipe(RECIPE, images))

    def turn(first: int) -> None:
        for index in group(first):
            views(dict(img_path=dataset.path(index), sample_idx=0))

    return turn


def lightly(images: str) -> Turn:
    """Its two DenseCL views of a file."""
    from lightly.transforms import DenseCLTransform

    views = DenseCLTransform()
    dataset = build_dataset(recipe(RECIPE, images))

    def turn(first: int) -> None:
        for index in group(first):
            views(Image.open(dataset.path(index)).convert("RGB"))

    return turn


PIPELINES = {
    "worker": our_worker,
    "whole input": our_input,
    "mmpretrain": mmpretrain,
    "lightly": lightly,
}


def group(first: int) -> range:
    return range(first, first + GROUP)


@cache
def pipeline(name: str, images: str) -> Turn:
    """One of ``PIPELINES``, built once in a process."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    return PIPELINES[name](images)


def cpu_seconds(name: str, images: str, first: int) -> float:
    turn = pipeline(name, images)
    start = time.process_time()
    turn(first)
    return time.process_time() - start


def compare_data(images: str, rounds: int) -> dict:
    """CPU milliseconds of one image with two views at 224 pixels, on one thread.

    Each in a process of its own, as data workers are; only one of them works at a time.
    """
    for name in ("mmpretrain", "lightly"):
        import_module(name)
    count = min(200, len(build_dataset(recipe(RECIPE, images)))) // GROUP * GROUP
    spent: dict[str, list[float]] = {name: [] for name in PIPELINES}
    with ExitStack() as stack:
        context = get_context("spawn")
        processes = {
            name: stack.enter_context(ProcessPoolExecutor(1, context)) for name in PIPELINES
        }
        for number in range(rounds + 1):  # the first is a warm-up
            total = dict.fromkeys(PIPELINES, 0.0)
            for first in range(0, count, GROUP):
                for name, process in processes.items():
                    total[name] += process.submit(cpu_seconds, name, images, first).result()
            if number:
                for name, seconds in total.items():
                    spent[name].append(1000 * seconds / count)
    return dict(images=count, cpu_ms={k: summary(v) for k, v in spent.items()}) | ratios(
        spent, ("worker", "whole input")
    )


def mmpretrain_step(images: int, side: int, queue_size: int) -> Callable[[], None]:
    """A training step of its DenseCL, as its config has it: its code, its matrix of logits."""
    import mmpretrain.models  # noqa: F401
    from mmengine.registry import DefaultScope
    from mmpretrain.registry import MODELS

    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = MODELS.build(
            dict(
                type="DenseCL",
                queue_len=queue_size,
                feat_dim=128,
                momentum=0.001,
                loss_lambda=0.5,
                backbone=dict(type="ResNet", depth=50, norm_cfg=dict(type="BN")),
                neck=dict(
                    type="DenseCLNeck",
                    in_channels=2048,
                    hid_channels=2048,
                    out_channels=128,
                    num_grid=None,
                ),
                head=dict(
                    type="ContrastiveHead", loss=dict(type="CrossEntropyLoss"), temperature=0.2
                ),
            )
        ).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    views = [torch.randn(images, 3, side, side) for _ in range(2)]

    def step() -> None:
        optimizer.zero_grad()
        sum(model.loss(views, None).values()).backward()
        optimizer.step()

    return step


def compare_step(rounds: int) -> dict:
    """Seconds of a DenseCL step of ResNet-50, 32 images at 224 pixels, in our default precision."""
    cfg = recipe(RECIPE)
    method = build_method(cfg, CPU)
    wrapper = build_optimizer(cfg, method)
    augment = method.data_preprocessor
    batch = augment(augment.cast_data(synthetic_batch(cfg)), True)["batch"]
    method.data_preprocessor = Prepared()
    backbone = build_backbone(cfg, CPU)
    dtype = torch.bfloat16 if wrapper.precision == "bf16" else None
    images, _, side, _ = batch.views[0].shape
    calls = dict(
        step=lambda: method.train_step(batch, wrapper),
        floor=lambda: floor_step(backbone, [batch], dtype),
        mmpretrain=mmpretrain_step(images, side, len(method.queue.features)),
    )
    spent = time_interleaved(calls, CPU, rounds, 1)
    return dict(
        images=images,
        precision=wrapper.precision,
        seconds={name: summary(values) for name, values in spent.items()},
    ) | ratios(spent, ("step",))


def ratios(spent: dict[str, list[float]], ours: tuple[str, ...]) -> dict[str, float]:
    """How many times our time each other one is: the median over the rounds."""
    return {
        f"{name} / {own}": statistics.median(
            theirs / mine for theirs, mine in zip(spent[name], spent[own], strict=True)
        )
        for name in spent
        for own in ours
        if name not in ("worker", "whole input", "step")
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time the same work in mmpretrain and lightly.")
    parser.add_argument("what", choices=("data", "step"))
    parser.add_argument("--images", help="a folder of JPEGs, for data")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--out", metavar="F", help="write the result as JSON")
    args = parser.parse_args(argv)
    if args.what == "data" and not args.images:
        parser.error("data needs --images")
    try:
        result = (
            compare_data(args.images, args.rounds)
            if args.what == "data"
            else compare_step(args.rounds)
        )
    except ImportError as error:
        print(f"\nerror: {error}.\nWhat to do: {INSTALL}", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 2
    result["versions"] = package_versions(("onedl-mmpretrain", "lightly"))
    print(table(result))
    if args.out:
        write(record(f"peers-{args.what}", result, RECIPE, "cpu"), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
