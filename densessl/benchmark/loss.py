"""``info_nce`` against the form that everyone writes first, with all logits at once."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.benchmark.measure import MB, PeakMemory, profiled, summary, time_interleaved
from densessl.losses import info_nce

COPIES = 5  # of the logits, that the materialised form holds at its worst, rounded up


def materialised(
    query: Tensor, positive: Tensor, negatives: Tensor, temperature: float = 0.2
) -> Tensor:
    """The same loss through an (N, 1 + K) matrix of logits and a cross entropy."""
    own = (query * positive).sum(1, keepdim=True)
    logits = torch.cat([own, query @ negatives.T], dim=1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(query), dtype=torch.long))


def available_mb(device: torch.device) -> float:
    """Memory that can still be had."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / MB
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("MemAvail")) / 1024


def benchmark_loss(
    rows: Sequence[int],
    negatives: Sequence[int],
    dim: int,
    device: torch.device,
    repeats: int = 5,
    warmup: int = 1,
    trace: str | None = None,
) -> dict[str, Any]:
    """Compares both forms at every pair of ``rows`` and ``negatives``, see ``compare_forms``.

    Args:
        rows: Numbers of rows of queries: 49 an image for DenseCL at 224 pixels.
        negatives: Lengths of the queue.
        dim: Channels.
        device: Where.
        repeats: Timed rounds.
        warmup: Rounds before.
        trace: Where to write a profile of one streaming round at the last pair.
    """
    pairs = list(product(rows, negatives))
    traces = [None] * (len(pairs) - 1) + [trace]
    return dict(
        dim=dim,
        sizes=[
            compare_forms(*pair, dim, device, repeats, warmup, to)
            for pair, to in zip(pairs, traces, strict=True)
        ],
    )


def compare_forms(
    rows: int,
    negatives: int,
    dim: int,
    device: torch.device,
    repeats: int,
    warmup: int,
    trace: str | None,
) -> dict[str, Any]:
    """Forward and backward of both forms in float32: seconds, and peak memory beside the inputs.

    The materialised form is left out where it might not fit into memory.
    """
    query, positive, queue = (
        F.normalize(torch.randn(count, dim, device=device), dim=1)
        for count in (rows, rows, negatives)
    )
    query.requires_grad_()

    def gradient(loss) -> Tensor:
        (grad,) = torch.autograd.grad(loss(query, positive, queue), query)
        return grad

    forms = {"streaming": info_nce}
    if COPIES * 4 * rows * negatives / MB < available_mb(device):
        forms["materialised"] = materialised
    calls = {name: lambda loss=loss: gradient(loss) for name, loss in forms.items()}
    seconds = time_interleaved(calls, device, repeats, warmup)
    result: dict[str, Any] = dict(rows=rows, negatives=negatives)
    for name, call in calls.items():  # after the rounds: what libraries keep for good is there
        with PeakMemory(device) as memory:
            call()
        result[name] = dict(seconds=summary(seconds[name]), extra_mb=memory.extra)
    with profiled(trace, device):
        calls["streaming"]()
    if "materialised" in forms:
        ours, theirs = (result[name]["seconds"]["median"] for name in forms)
        result["time_ratio"] = ours / theirs
    return result
