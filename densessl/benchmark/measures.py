"""What each measure buys: the same work with it and as it is usually written, in turn."""

import copy
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch.utils.data import Dataset

from densessl.benchmark.measure import gain, time_interleaved
from densessl.benchmark.plain import (
    DECODERS,
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
from densessl.benchmark.shuffle import compare_shuffles
from densessl.benchmark.step import floor_step
from densessl.benchmark.variants import of_whole_steps
from densessl.datasets import ImageDataset, ImageFolder, TarShards, collate_views
from densessl.datasets.shards import write_shards
from densessl.files import make_folder
from densessl.losses.info_nce import attend, stream
from densessl.models.backbones.norm_act import library
from densessl.models.methods.moco import MoCo
from densessl.registry import MODELS
from densessl.structures import SampleKey, ViewBatch
from densessl.threads import one_thread
from densessl.transforms.decode import read_image
from densessl.transforms.views import MultiView

Pairs = dict[str, tuple[Callable[[], object], Callable[[], object]]]

JPEG = b"\xff\xd8"  # how its bytes begin


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
        is the first; for some more figures.
    """
    dataset = build_dataset(cfg)
    result = {}
    with one_thread(), TemporaryDirectory() as folder:
        pairs = of_the_worker(dataset, images) | of_the_shards(dataset, images, Path(folder))
        for name, pair in pairs.items():
            result[name] = _compare(pair, torch.device("cpu"), repeats, warmup)
    result |= of_whole_steps(cfg, device, repeats)
    if device.type == "cpu" and issubclass(MODELS.get(cfg.model.type), MoCo):
        side = dataset.transform.size
        result["shuffle"] = compare_shuffles(images_per_step(cfg), side, repeats, warmup)
    pairs = of_the_colour(cfg, dataset, device) | of_the_step(cfg, device) | of_the_loss(device)
    for name, pair in pairs.items():
        result[name] = _compare(pair, device, repeats, warmup)
    return result


def of_the_worker(dataset: Dataset, images: int) -> Pairs:
    """One decode for all views, at the scale that the crops allow, crops by torch, the decoder."""
    count = min(images, len(dataset))
    files = [(dataset.read(index), SampleKey(0, 0, index)) for index in range(count)]

    def over_all(make: Callable) -> Callable[[], None]:
        def run() -> None:
            for file, key in files:
                make(dataset.transform, file, key)

        return run

    ours = over_all(MultiView.__call__)
    plain = dict(one_decode=decode_for_each_view, decode_scale=decode_whole, crops=crop_with_pillow)
    pairs = {name: (ours, over_all(make)) for name, make in plain.items()}

    def decoding(decode: Callable) -> Callable[[], None]:
        return over_all(lambda transform, file, key: decode(file))

    if all(file.startswith(JPEG) for file, _ in files):
        for name, decode in DECODERS.items():
            pairs[f"decoder_not_{name}"] = decoding(read_image), decoding(decode)
    return pairs


def of_the_shards(dataset: Dataset, images: int, folder: Path) -> Pairs:
    """Images read from a tar shard against a folder of files, both copied to ``folder``."""
    count = min(images, len(dataset))
    for index in range(count):
        name = f"{index:06}{Path(dataset.path(index)).suffix}"
        (make_folder(folder / "files") / name).write_bytes(dataset.read(index))
    write_shards(folder / "files", folder / "shards")
    copies = (TarShards(str(folder / "shards"), None), ImageFolder(str(folder / "files"), None))

    def reading(copy: ImageDataset) -> Callable[[], None]:
        def run() -> None:
            for index in range(count):
                copy.read(index)

        return run

    ours, plain = map(reading, copies)
    return {"shards": (ours, plain)}


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


def _compare(
    pair: tuple[Callable, Callable], device: torch.device, repeats: int, warmup: int
) -> dict[str, Any]:
    calls = dict(zip(("with", "without"), pair, strict=True))
    seconds = time_interleaved(calls, device, repeats, warmup)
    return gain(seconds["with"], seconds["without"])
