"""How many threads small operations get."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread(
    get: Callable[[], int] = torch.get_num_threads,
    put: Callable[[int], None] = torch.set_num_threads,
) -> Iterator[None]:
    """Keeps torch, or the library whose functions are given, to one thread; not an accelerator.

    The operations on one image take microseconds. Sharing them among threads gains a fifth on an
    idle machine and costs a hundredfold where data workers use the cores: every operation then
    waits for a thread that is not running.
    """
    threads = get()
    put(1)
    try:
        yield
    finally:
        put(threads)
