"""What this process keeps of the memory that it has freed."""

import ctypes
import os
from functools import cache

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


@cache  # once a process
def keep_freed_memory() -> None:
    """Keeps for the next training step what this one frees, where nothing trains on a GPU.

    A step on a CPU takes gigabytes and gives them back, and the kernel has to find and clear each
    page anew: up to a quarter of the step's time. What lies free goes back before the process is
    forked, since data workers would hold on to it. For the rest of the process; does nothing
    where the C library is not glibc.
    """
    libc = ctypes.CDLL(None)
    if torch.cuda.is_available() or not hasattr(libc, "mallopt"):
        return
    if libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, -1):
        os.register_at_fork(before=lambda: libc.malloc_trim(0))
