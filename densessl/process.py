"""What this process takes of the machine: cores for small operations, memory that was freed."""

import ctypes
from contextlib import contextmanager

import cv2
import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


@contextmanager
def one_thread():
    """Keeps torch and OpenCV to one thread, without effect on an accelerator.

    The operations on one image take microseconds. Sharing them among threads gains a fifth on an
    idle machine and costs a hundredfold where data workers use the cores: every operation then
    waits for a thread that is not running.
    """
    threads, others = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(others)


def keep_freed_memory() -> None:
    """Lets the allocator keep for the next step what this one frees, where nothing trains on a GPU.

    A step on a CPU takes gigabytes and gives them back, and the kernel clears each page anew: up to
    a quarter of the step's time. For the rest of the process; without glibc it does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and not torch.cuda.is_available():
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
