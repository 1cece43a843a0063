"""What each measure buys: the same work with it and as it is usually written, in turn."""

import copy
import inspect
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings
from torch.utils.data import Dataset

from densessl.benchmark.measure import in_turn, summary, time_interleaved
from densessl.benchmark.plain import (
    color_with_torchvision,
    crop_with_pillow,
    decode_for_each_view,
    decode_whole,
    follow_one_by_one,
    norms_by_pytorch,
)
from densessl.benchmark.setup import (
    build_backbone,
    build_dataset,
    build_method,
    build_optimizer,
    images_per_step,
)
from densessl.benchmark.step import TrainingStep, floor_step
from densessl.datasets import collate_views
from densessl.losses.info_nce import attend, stream
from densessl.models.backbones.norm_act import library
from densessl.structures import SampleKey, ViewBatch
from densessl.threads import one_thread
from densessl.transforms.views import MultiView

Pairs = dict[str, tuple[Callable[[], object], Callable[[], object]]]

_steps: dict[str, TrainingStep] = {}  # one in each process of ``kept_memory``


def benchmark_measures(
    cfg: Config, device: torch.device, images: int = 64, repeats: int = 5, warmup: int = 1
) -> dict[str, Any]:
    """Times each measure against the plain way; both give the same.

    Args:
        cfg: See ``recipe``.
        device: Where the colour is applied and the networks run.
        images: How many images the measures of the worker use at most, on one thread.
        repeats: Timed rounds.
        warmup: Rounds before.

    Returns:
        For each measure the seconds ``with`` and ``without`` it, and how many times the second
        is the first.
    """
    dataset = build_dataset(cfg)
    result = {}
    with one_thread():
        for name, pair in of_the_worker(dataset, images).items():
            result[name] = _compare(pair, torch.device("cpu"), repeats, warmup)
    if device.type == "cpu":
        seen = in_turn(_step_seconds, ("with", "without"), repeats, cfg.to_dict())
        result["kept_memory"] = _gain(seen)
    pairs = of_the_colour(cfg, dataset, device) | of_the_step(cfg, device) | of_the_loss(device)
    for name, pair in pairs.items():
        result[name] = _compare(pair, device, repeats, warmup)
    return result


def of_the_worker(dataset: Dataset, images: int) -> Pairs:
    """One decode for all views, at the scale that the crops allow, and crops by torch."""
    count = min(images, len(dataset))
    files = [(dataset.read(index), SampleKey(0, 0, index)) for index in range(count)]

    def over_all(make: Callable) -> Callable[[], None]:
        def run() -> None:
            for file, key in files:
                make(dataset.transform, file, key)

        return run

    ours = over_all(MultiView.__call__)
    plain = dict(one_decode=decode_for_each_view, decode_scale=decode_whole, crops=crop_with_pillow)
    return {name: (ours, over_all(make)) for name, make in plain.items()}


def of_the_colour(cfg: Config, dataset: Dataset, device: torch.device) -> Pairs:
    """The augmentation from the record against torchvision's, image by image."""
    augment = build_method(cfg, device).data_preprocessor
    if augment.channel_order != "RGB":
        return {}
    count = min(images_per_step(cfg), len(dataset))
    batch = collate_views([dataset[SampleKey(0, 0, index)] for index in range(count)])
    batch = augment.cast_data(batch)
    mean, std = augment.mean.tolist(), augment.std.tolist()
    return {
        "colour": (
            lambda: augment(batch, True),
            lambda: color_with_torchvision(batch, mean, std),
        )
    }


def of_the_step(cfg: Config, device: torch.device) -> Pairs:
    """Channels-last, bf16 and norms of the floor, the fused optimizer, the teacher's one call."""
    method, backbone = build_method(cfg, device), build_backbone(cfg, device)
    wrapper = build_optimizer(cfg, method)
    dtype = torch.bfloat16 if wrapper.precision == "bf16" else None
    side = max(view.size for view in build_dataset(cfg).transform.views_at(0))
    view = torch.randn(cfg.train_dataloader.batch_size, 3, side, side, device=device)
    last, contiguous = (
        [ViewBatch((view.to(memory_format=form),) * 2, (), None, None)]
        for form in (torch.channels_last, torch.contiguous_format)
    )
    twin = build_backbone(cfg, device).to(memory_format=torch.contiguous_format)
    ours = partial(floor_step, backbone, last, dtype)
    pairs: Pairs = {"channels_last": (ours, partial(floor_step, twin, contiguous, dtype))}
    if dtype is not None:
        pairs["bf16"] = ours, partial(floor_step, backbone, last, None)
        if device.type == "cpu" and library() is not None:
            by_pytorch = norms_by_pytorch(build_backbone(cfg, device))
            pairs["norm_act"] = ours, partial(floor_step, by_pytorch, last, dtype)
    if "foreach" in inspect.signature(type(wrapper.optimizer)).parameters:
        for parameter in method.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        one_by_one = copy.deepcopy(cfg)
        one_by_one.optim_wrapper.optimizer.foreach = False
        plain = build_optimizer(one_by_one, method)
        pairs["optimizer"] = wrapper.optimizer.step, plain.optimizer.step
    if hasattr(method, "teacher"):
        pairs["teacher"] = (
            partial(method.teacher.update, method),
            partial(follow_one_by_one, method),
        )
    return pairs


def of_the_loss(device: torch.device) -> Pairs:
    """PyTorch's attention kernel for the dense loss of 32 images, where it is used: on a CPU."""
    if device.type != "cpu":
        return {}
    query, negatives = (F.normalize(torch.randn(n, 128), dim=1) for n in (32 * 49, 65536))
    return {"attention_kernel": tuple(partial(f, query, negatives, 5.0) for f in (attend, stream))}


def _step_seconds(name: str, config: dict) -> float:
    """Seconds of a step in a process that keeps freed memory, or does not."""
    if name not in _steps:
        import_modules_from_strings(**config.get("custom_imports", dict(imports=[])))
        _steps[name] = TrainingStep(Config(config), torch.device("cpu"), name == "with")
    start = time.perf_counter()
    _steps[name]()
    return time.perf_counter() - start


def _compare(
    pair: tuple[Callable, Callable], device: torch.device, repeats: int, warmup: int
) -> dict[str, Any]:
    calls = dict(zip(("with", "without"), pair, strict=True))
    return _gain(time_interleaved(calls, device, repeats, warmup))


def _gain(seconds: dict[str, list[float]]) -> dict[str, Any]:
    times = {name: summary(values) for name, values in seconds.items()}
    return dict(seconds=times, gain=times["without"]["median"] / times["with"]["median"])
