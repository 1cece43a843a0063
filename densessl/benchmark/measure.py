"""Measuring: seconds, interleaved so that a busy machine treats all alike, and peak memory."""

import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from densessl.errors import UserError
from densessl.files import make_folder
from densessl.memory import give_freed_memory_back

PAGE = 4096
MB = 2**20


def synchronize(device: torch.device) -> None:
    """Waits for what ``device`` has been given to do; a CPU has done it already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_interleaved(
    calls: dict[str, Callable[[], object]],
    device: torch.device,
    repeats: int,
    warmup: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Times each of ``calls`` in turn, ``repeats`` times over.

    Args:
        calls: What to time.
        device: Waited for before and after each call.
        repeats: Timed rounds.
        warmup: Rounds before those, not counted: compilation, caches, allocators.
        clock: ``time.process_time`` counts the CPU seconds of all threads instead, without those
            that a CPU spends on waiting for the device at the end.

    Returns:
        Seconds of each call.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(warmup + repeats):
        for name, call in calls.items():
            synchronize(device)
            start = clock()
            call()
            if clock is not time.process_time:
                synchronize(device)
            spent = clock() - start
            synchronize(device)
            if number >= warmup:
                seconds[name].append(spent)
    return seconds


def in_turn(
    work: Callable[..., Any], names: Iterable[str], rounds: int, *args: object
) -> dict[str, list[Any]]:
    """What ``work(name, *args)`` returned in each round, in a process of its own for each name.

    Only one works at a time, with as many threads as here. The first round is a warm-up and is left
    out.

    Args:
        work: A function of a module.
        names: One process each.
        rounds: Of those that count.
        *args: Passed on.
    """
    seen: dict[str, list[Any]] = {name: [] for name in names}
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(
                ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,))
            )
            for name in seen
        }
        for number in range(rounds + 1):
            for name, process in processes.items():
                result = process.submit(work, name, *args).result()
                if number:
                    seen[name].append(result)
    return seen


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of ``seconds``."""
    low, median, high = (
        statistics.quantiles(seconds, n=4, method="inclusive")
        if len(seconds) > 1
        else (seconds[0],) * 3
    )
    return dict(median=median, q25=low, q75=high, runs=len(seconds))


def gain(ours: Sequence[float], plain: Sequence[float]) -> dict[str, Any]:
    """Seconds ``with`` and ``without`` a measure, and how many times the second is the first."""
    times = {"with": summary(ours), "without": summary(plain)}
    return dict(seconds=times, gain=times["without"]["median"] / times["with"]["median"])


def resident_mb() -> float:
    """Memory of this process as the kernel sees it, allocators and C libraries included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / MB


def peak_mb(device: torch.device) -> float:
    """MB that this process has held at its worst so far; on a GPU its tensors there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MB
    # Not getrusage: it counts the memory of the process that this one was started from.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


class PeakMemory:
    """What a block of code holds at its worst: ``with PeakMemory(device) as memory: ...``.

    On a GPU the memory that tensors take there, on a CPU the resident memory of the process, looked
    at every millisecond. What was free before goes back first: it would be used again unseen.

    Attributes:
        before: MB at the start.
        peak: MB at the worst.
    """

    def __init__(self, device: torch.device):
        self.device = device

    @property
    def extra(self) -> float:
        """MB at the worst above the start."""
        return max(self.peak - self.before, 0.0)

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device) / MB
        else:
            give_freed_memory_back()
            self.peak = self.before = resident_mb()
            self._done = threading.Event()
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.001):
            self.peak = max(self.peak, resident_mb())

    def __exit__(self, *_) -> None:
        if self.device.type == "cuda":
            synchronize(self.device)
            self.peak = torch.cuda.max_memory_allocated(self.device) / MB
        else:
            self._done.set()
            self._watcher.join()


@contextmanager
def profiled(path: str | Path | None, device: torch.device) -> Iterator[None]:
    """Writes a trace of the block for chrome://tracing or Perfetto; with no ``path``, nothing.

    Raises:
        UserError: The trace cannot be written.
    """
    if path is None:
        yield
        return
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        yield
        synchronize(device)
    make_folder(Path(path).parent)
    profile.export_chrome_trace(str(path))
    if not Path(path).is_file():  # PyTorch only logs that
        raise UserError(f"The trace {path} could not be written.", "choose another --profile")
