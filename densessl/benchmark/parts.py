"""Where the time of one training step goes, part by part."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from densessl.benchmark.measure import summary, synchronize
from densessl.engine.compiling import networks
from densessl.models.methods.base import Method

REST = "loss, matching, figures"  # both ways


class Stopwatch:
    """Gives the time from each call to the next to the part that the first one names.

    Args:
        device: Waited for at every call.

    Attributes:
        seconds: Of each part so far.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._part, self._since = REST, time.perf_counter()

    def __call__(self, part: str) -> None:
        synchronize(self.device)
        now = time.perf_counter()
        self.seconds[self._part] += now - self._since
        self._part, self._since = part, now


@contextmanager
def watched(
    method: Method, optimizer: torch.optim.Optimizer, enter: Callable[[str], None]
) -> Iterator[None]:
    """Calls ``enter`` with a part's name wherever a step of ``method`` comes to another part."""

    def hook(part: str) -> Callable[..., None]:
        return lambda *_: enter(part)

    def at_gradient(tensors: object, part: str) -> None:
        for x in tensors if isinstance(tensors, tuple) else (tensors,):
            if isinstance(x, Tensor) and x.requires_grad:
                x.register_hook(hook(part))

    def own(args: tuple) -> tuple:
        """Tensors that get the gradient of this network alone."""
        return tuple(x.view_as(x) if isinstance(x, Tensor) else x for x in args)

    def follow_backward(network: nn.Module, part: str, end: bool) -> Iterator[RemovableHandle]:
        yield network.register_forward_hook(lambda _, args, out: at_gradient(out, part))
        if end:
            yield network.register_forward_pre_hook(lambda _, args: own(args))
            yield network.register_forward_hook(lambda _, args, out: at_gradient(args, REST))

    handles = [optimizer.register_step_pre_hook(hook("optimizer"))]
    for name, child in method.named_children():
        part = {"backbone": "student forward", "teacher": "teacher forward"}.get(name, "heads")
        for network in networks(child):
            if name == "backbone":  # the last part of a backward pass: it needs no end
                handles += follow_backward(network, "student backward", end=False)
            elif name != "teacher":
                handles += follow_backward(network, part, end=True)
            handles.append(network.register_forward_pre_hook(hook(part)))
            handles.append(network.register_forward_hook(hook(REST)))
    move = method.after_optimizer_step

    def moved() -> None:
        enter("teacher's update, queues")
        move()
        enter("optimizer")  # gradients are freed

    method.after_optimizer_step = moved
    try:
        yield
    finally:
        del method.after_optimizer_step
        for handle in handles:
            handle.remove()


def time_parts(
    step: Callable[[], None],
    method: Method,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    repeats: int,
) -> list[dict[str, Any]]:
    """Seconds of each part of ``step``, in order of size, and their shares of all.

    Args:
        step: A training step of ``method``, not compiled.
        method: Its networks are watched while this runs.
        optimizer: What the step uses.
        device: Where.
        repeats: Timed steps.
    """
    rounds = []
    for _ in range(repeats):
        watch = Stopwatch(device)
        with watched(method, optimizer, watch):
            watch(REST)
            step()
            watch(REST)
        rounds.append(watch.seconds)
    parts = {name: summary([seconds[name] for seconds in rounds]) for name in rounds[0]}
    total = sum(times["median"] for times in parts.values())
    return [
        dict(part=name, seconds=times, share=times["median"] / total)
        for name, times in sorted(parts.items(), key=lambda item: -item[1]["median"])
    ]
