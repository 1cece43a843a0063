"""Who has bf16, and full precision inside its autocast: no similarity or loss is computed in it."""

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor


def has_bf16(device: str) -> bool:
    """Whether a ``device``, "cuda" or "cpu", computes bf16 in hardware."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def at_least_float32(value):
    """Lifts a tensor of half precision to float32; everything else passes unchanged."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(torch.promote_types(value.dtype, torch.float32))
    return value


def full_precision(function: Callable) -> Callable:
    """Runs ``function`` with autocast off and its floating tensors in float32 or better.

    Its first tensor says, by its device, which autocast to switch off.
    """

    @wraps(function)
    def wrapped(*args, **kwargs):
        args = [at_least_float32(value) for value in args]
        kwargs = {name: at_least_float32(value) for name, value in kwargs.items()}
        first = next(each for each in (*args, *kwargs.values()) if isinstance(each, Tensor))
        with torch.autocast(first.device.type, enabled=False):
            return function(*args, **kwargs)

    return wrapped


@full_precision
def l2_normalize(features: Tensor) -> Tensor:
    """Unit vectors along axis 1, in float32 or better."""
    return torch.nn.functional.normalize(features, dim=1)
