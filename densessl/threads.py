"""How many threads small operations get."""

from contextlib import contextmanager

import torch


@contextmanager
def one_thread():
    """Keeps torch to one thread, without effect on an accelerator.

    The operations on one image take microseconds. Sharing them among threads gains a fifth on an
    idle machine and costs a hundredfold where data workers use the cores: every operation then
    waits for a thread that is not running.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
