"""Peak memory of a call, as the kernel sees it (allocators and C libraries included)."""

import threading
from collections.abc import Callable
from pathlib import Path


def _resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS in /proc/self/status")


def peak_extra_mb(call: Callable[[], object]) -> float:
    """Megabytes that ``call`` holds at its worst above what was resident before it."""
    before, peak, done = _resident_mb(), 0.0, threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, _resident_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        call()
    finally:
        done.set()
        watcher.join()
    return max(peak - before, 0.0)
