"""The same work in mmpretrain and lightly, turn by turn with ours: benchmark_peers.py data|step.

Needs both beside densessl: ``pip install --no-build-isolation onedl-mmpretrain lightly``.
"""

import argparse
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import default_collate

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
from densessl.environment import package_versions
from densessl.errors import UserError
from densessl.structures import SampleKey, ViewBatch
from densessl.transforms.functional import one_thread

RECIPE = "densecl/densecl_r50_8xb32-coslr-200e_in1k.py"
CPU = torch.device("cpu")
GROUP = 20  # images of one turn
INSTALL = "pip install --no-build-isolation onedl-mmpretrain lightly"


def mmpretrain_pipeline() -> Callable[[str], object]:
    """Its two MoCo v2 views of one file, as its DenseCL config makes them."""
    import cv2
    import mmpretrain.datasets
    from mmcv.transforms import Compose
    from mmengine.config import Config
    from mmengine.registry import DefaultScope

    cv2.setNumThreads(1)
    folder = Path(mmpretrain.__file__).parent / ".mim/configs/_base_/datasets"
    steps = Config.fromfile(folder / "imagenet_bs32_mocov2.py").train_pipeline
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        pipeline = Compose(steps)

    def views(path: str):
        with DefaultScope.overwrite_default_scope("mmpretrain"):
            return pipeline(dict(img_path=path, sample_idx=0))

    return views


def lightly_pipeline() -> Callable[[str], object]:
    """Its two DenseCL views of one file."""
    from lightly.transforms import DenseCLTransform

    transform = DenseCLTransform()
    return lambda path: transform(Image.open(path).convert("RGB"))


def compare_data(images: str, rounds: int) -> dict:
    """CPU milliseconds of one image with two views at 224 pixels, on one thread."""
    cfg = recipe(RECIPE, images)
    dataset = build_dataset(cfg)
    theirs = dict(mmpretrain=mmpretrain_pipeline(), lightly=lightly_pipeline())
    augment = build_method(cfg, CPU).data_preprocessor
    count = min(200, len(dataset)) // GROUP * GROUP

    def ours(first: int) -> Iterator[ViewBatch]:
        return (dataset[SampleKey(0, 0, index)] for index in range(first, first + GROUP))

    def peer(views: Callable, first: int) -> None:
        for index in range(first, first + GROUP):
            views(dataset.path(index))

    spent: dict[str, list[float]] = {}
    with one_thread():
        for number in range(rounds + 1):  # the first is a warm-up
            total: dict[str, float] = {}
            for first in range(0, count, GROUP):
                calls = {
                    # None is kept, as the peers keep none: memory costs time of its own.
                    "worker": lambda first=first: deque(ours(first), maxlen=0),
                    "whole input": lambda first=first: augment(
                        augment.cast_data(default_collate(list(ours(first)))), True
                    ),
                    **{k: lambda f=f, first=first: peer(f, first) for k, f in theirs.items()},
                }
                seconds = time_interleaved(calls, CPU, 1, 0, time.process_time)
                for name, (value,) in seconds.items():
                    total[name] = total.get(name, 0.0) + 1000 * value / count
            if number:
                for name, value in total.items():
                    spent.setdefault(name, []).append(value)
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
