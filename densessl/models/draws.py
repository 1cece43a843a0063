"""Random integers that depend on the optimizer step and the image, and on nothing else.

A generator's numbers depend on what was drawn before: on micro-batches, ranks and the device.
These are the same for any of them, and after a resume; on an accelerator nothing waits for them.
"""

import torch
from torch import Tensor

_STRIDE = 0x9E3779B97F4A7C15 - 2**64
_MIX = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64), (31, 1))


def _mix(bits: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014): int64 to int64, one to one."""
    for shift, factor in _MIX:
        # Right shifts of negative numbers bring in ones, the mask takes them away.
        bits = (bits ^ ((bits >> shift) & (2 ** (64 - shift) - 1))) * factor
    return bits


def draw(high: int, count: int, step: int, index: Tensor) -> Tensor:
    """``count`` integers for each image, uniform in [0, high), with replacement.

    Args:
        high: Above the largest.
        count: Integers for each image.
        step: Optimizer step.
        index: (N,) int64, place of each image in the data list.

    Returns:
        (N, count) int64.
    """
    start = _mix(_mix(index + _STRIDE) + step)
    places = torch.arange(1, count + 1, device=index.device) * _STRIDE
    return (_mix(start[:, None] + places) & (2**63 - 1)) % high


def draw_shared(high: int, count: int, step: int, device: torch.device) -> Tensor:
    """``count`` integers for the whole batch, on all ranks: (count,) int64 in [0, high)."""
    return draw(high, count, step, torch.full((1,), -1, device=device))[0]
