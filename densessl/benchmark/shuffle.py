"""Shuffle-BN between two processes on a CPU: ours against gathering all float views everywhere."""

import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch

from densessl.benchmark.measure import MB, gain, time_interleaved
from densessl.benchmark.plain import shuffle_by_gathering
from densessl.models.distributed import BatchShuffle

WORLD = 2


def compare_shuffles(images: int, side: int, repeats: int, warmup: int = 1) -> dict[str, Any]:
    """Key views shuffled over two gloo processes on this machine.

    Args:
        images: On each process.
        side: Of the views in pixels.
        repeats: Timed rounds.
        warmup: Rounds before.

    Returns:
        ``seconds`` and ``gain`` as of every measure, and ``sent_mb``: what leaves each process, by
        count; ours the mean over draws.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(WORLD, get_context("spawn")) as pool,
    ):
        work = partial(_rank, folder, images, side, repeats, warmup)
        seconds, _ = pool.map(work, range(WORLD))
    floats = images * 3 * side**2 * 4 / MB  # all of one process's, to the other
    sent = {"with": floats / 4 * (WORLD - 1) / WORLD, "without": floats * (WORLD - 1)}
    return gain(seconds["with"], seconds["without"]) | dict(sent_mb=sent)


def _rank(
    folder: str, images: int, side: int, repeats: int, warmup: int, rank: int
) -> dict[str, list[float]]:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD
    )
    raw = torch.randint(256, (images, side, side, 3), dtype=torch.uint8)
    floats = torch.randn(images, 3, side, side)
    calls = {
        "with": lambda: BatchShuffle(images, seed=0).shuffle(raw),
        "without": lambda: shuffle_by_gathering(floats, seed=0),
    }
    seconds = time_interleaved(calls, torch.device("cpu"), repeats, warmup)
    torch.distributed.destroy_process_group()
    return seconds
