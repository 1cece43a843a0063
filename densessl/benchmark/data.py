"""The way of the images: CPU time on a worker, throughput of the loader, colour on the device."""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import Dataset

from densessl.benchmark.measure import profiled, summary, time_interleaved
from densessl.benchmark.setup import build_dataset, build_method, images_per_step, our_scope
from densessl.datasets import collate_views
from densessl.engine.loop import end_workers
from densessl.numeric import spaced
from densessl.structures import SampleKey
from densessl.threads import one_thread
from densessl.transforms.decode import read_image


def benchmark_data(
    cfg: Config,
    device: torch.device,
    images: int = 200,
    workers: Sequence[int] = (0, 1, 2),
    repeats: int = 5,
    trace: str | None = None,
) -> dict[str, Any]:
    """Measures each station by itself.

    Args:
        cfg: See ``recipe``.
        device: Where the colour is applied.
        images: How many of the data set's images are used, evenly spaced.
        workers: Numbers of workers to try the loader with.
        repeats: Timed rounds.
        trace: Where to write a profile of the worker's part.
    """
    dataset = build_dataset(cfg)
    worker = worker_cost(dataset, images, repeats, trace)
    colour = augmentation_cost(cfg, dataset, device, repeats)
    return dict(
        images=min(images, len(dataset)),
        worker=worker,
        augmentation=colour,
        cpu_ms_per_image=worker["sample_ms"]["median"] + colour["cpu_ms"]["median"],
        loader=[throughput(cfg, dataset, number, repeats) for number in workers],
    )


def worker_cost(
    dataset: Dataset, images: int, repeats: int, trace: str | None = None
) -> dict[str, Any]:
    """CPU milliseconds of one image on a worker: all of it, and reading and decoding alone."""
    keys = [SampleKey(0, 0, index) for index in spaced(len(dataset), images)]
    files = [dataset.read(key.index) for key in keys]
    scales = [
        dataset.transform.plan(file, key).scale for file, key in zip(files, keys, strict=True)
    ]
    calls = {
        "sample": lambda: _consume(dataset[key] for key in keys),
        "read": lambda: _consume(dataset.read(key.index) for key in keys),
        "decode": lambda: _consume(map(read_image, files, scales)),
    }
    cpu = torch.device("cpu")
    with one_thread():
        seconds = time_interleaved(calls, cpu, repeats, 1, time.process_time)
        with profiled(trace, cpu):
            calls["sample"]()
    result = {f"{name}_ms": _per_image(values, len(keys)) for name, values in seconds.items()}
    whole = result["sample_ms"]["median"]
    return dict(
        **result,
        decode_share=result["decode_ms"]["median"] / whole,
        images_per_core_s=1000 / whole,
    )


def augmentation_cost(
    cfg: Config, dataset: Dataset, device: torch.device, repeats: int
) -> dict[str, Any]:
    """Milliseconds that the device takes to finish one image's views, and the CPU's part in it."""
    count = min(images_per_step(cfg), len(dataset))
    batch = collate_views([dataset[SampleKey(0, 0, index)] for index in range(count)])
    augment = build_method(cfg, device).data_preprocessor
    batch = augment.cast_data(batch)
    clocks = {"ms": time.perf_counter, "cpu_ms": time.process_time}
    return {
        name: _per_image(
            time_interleaved({name: lambda: augment(batch, True)}, device, repeats, 2, clock)[name],
            count,
        )
        for name, clock in clocks.items()
    }


def throughput(cfg: Config, dataset: Dataset, workers: int, repeats: int) -> dict[str, Any]:
    """Images a second that the loader gives to somebody who does nothing with them."""
    options = dict(cfg.train_dataloader, dataset=dataset, num_workers=workers)
    options["batch_size"] = size = min(images_per_step(cfg), len(dataset))
    options["persistent_workers"] = workers > 0
    with our_scope():
        loader = Runner.build_dataloader(options, seed=0)
    loader.sampler.follow_on(size)
    batches = iter(loader)
    ahead = workers * (loader.prefetch_factor or 0) + 1  # made before anybody asked
    window = max(ahead, 4)

    def take() -> None:
        for _ in range(window):
            next(batches)

    seconds = time_interleaved({"take": take}, torch.device("cpu"), repeats, 1)["take"]
    end_workers(loader)
    rates = [window * size / value for value in seconds]
    return dict(workers=workers, batch=size, images_per_s=summary(rates))


def _consume(values: Iterable) -> None:
    """Makes them and keeps none: to hold on to hundreds of images costs time of its own."""
    deque(values, maxlen=0)


def _per_image(seconds: list[float], count: int) -> dict[str, float]:
    return summary([1000 * value / count for value in seconds])
