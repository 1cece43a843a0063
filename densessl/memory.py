"""What this process keeps of the memory that it has freed."""

import ctypes
import os
from functools import cache

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST = 32 * 2**20  # bytes; the most that glibc takes


@cache  # once a process
def keep_freed_memory() -> None:
    """Keeps for the next training step what this one frees, where nothing trains on a GPU.

    A step on a CPU takes gigabytes and gives them back, and the kernel has to find and clear each
    page anew: up to a quarter of the step's time. Tensors of 32 MB and more still go back at once:
    keeping those too is no faster and leaves gaps that make the process grow. Before the process
    is forked all that is free goes back, since data workers would hold on to it. For the rest of
    the process; does nothing where the C library is not glibc.
    """
    libc = ctypes.CDLL(None)
    if torch.cuda.is_available() or not hasattr(libc, "mallopt"):
        return
    if libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST) and libc.mallopt(_M_TRIM_THRESHOLD, -1):
        os.register_at_fork(before=give_freed_memory_back)


def give_freed_memory_back() -> None:
    """Gives the system what this process has freed; does nothing where the C library is not
    glibc."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
