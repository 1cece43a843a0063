"""BatchNorm, the sum with a residual and ReLU: together they are one pass over a map.

PyTorch's own kernels of the three take half of a ResNet's step on a CPU whose convolutions use AMX.
Those of ``norm_act.c`` take half of that: they read and write each value once a pass, in float
between, as fast as memory allows. With n pixels a channel::

    scale = weight / std                      offset = bias - mean * scale
    y = relu(x * scale + offset + residual)
    dbias = sum of dy                         dweight = sum of dy * (x - mean) / std
    dx = scale * (dy - dbias / n - (x - mean) / std * dweight / n)

where ``dy`` is that which ReLU let pass, and also the residual's gradient.

Source: BatchNorm (1502.03167), algorithm 1 and the gradients after it.
"""

import ctypes
import logging
import sysconfig
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from densessl.precision import has_bf16

SOURCE = Path(__file__).with_suffix(".c")
# Named after its source, so that one from before a change is not found.
LIBRARY = SOURCE.with_name(
    f"_norm_act_{zlib.crc32(SOURCE.read_bytes()):08x}{sysconfig.get_config_var('EXT_SUFFIX')}"
)


def norm_act(
    norm: nn.Module, x: Tensor, residual: Tensor | None = None, relu: bool = True
) -> Tensor:
    """``relu(norm(x) + residual)``; may write into what ``norm`` returns.

    Args:
        norm: BatchNorm, or any other layer that does not keep its output for the backward pass.
        x: (B, C, H, W).
        residual: Of the shape of ``x``.
        relu: Whether ReLU comes last.
    """
    if _one_pass(norm, x, residual):
        return _train(norm, x, residual, relu)
    y = norm(x)
    if residual is not None:
        y += residual
    return F.relu(y, inplace=True) if relu else y


@cache
def library() -> ctypes.CDLL | None:
    """``norm_act.c``, where the package was built with GCC and the CPU has bf16.

    It is linked with no OpenMP and finds the one that PyTorch has loaded: a second one would have
    threads of its own.
    """
    if not has_bf16("cpu"):
        return None
    try:
        return ctypes.CDLL(str(LIBRARY))
    except OSError:  # not built, or PyTorch's OpenMP is not that of the compiler
        print_log(
            "PyTorch computes the norms, which makes a step of a ResNet in bf16 a third longer: "
            "install densessl again where there is GCC, and norm_act.c will",
            "current",
            logging.WARNING,
        )
        return None


def _one_pass(norm: nn.Module, x: Tensor, residual: Tensor | None) -> bool:
    return (
        type(norm) is nn.BatchNorm2d  # SyncBatchNorm is another
        and type(x) is Tensor  # what torch.fx traces with is another
        and norm.training
        and not (norm._forward_hooks or norm._forward_pre_hooks)
        and norm.affine
        and norm.weight.dtype == torch.float32
        and norm.momentum is not None
        and all(
            part.shape == x.shape
            and part.dtype == torch.bfloat16
            and part.device.type == "cpu"
            and part.is_contiguous(memory_format=torch.channels_last)
            for part in (x, x if residual is None else residual)
        )
        and x.numel() > x.shape[1]  # else PyTorch says what is wrong
        and not torch.compiler.is_compiling()  # which makes a pass of it by itself
        and library() is not None
    )


def _train(norm: nn.BatchNorm2d, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    y, mean, variance = _NormAct.apply(x, residual, norm.weight, norm.bias, norm.eps, relu)
    if norm.track_running_stats:
        pixels = x.numel() // x.shape[1]
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (pixels / (pixels - 1)), norm.momentum)
    return y


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        relu: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        pixels = x.numel() // x.shape[1]
        origin = x[0, :, 0, 0].float()  # squares of what lies near zero lose no digits
        apart, square = _totals(x, None, None, origin, None) / pixels
        mean = (apart + origin).float()
        variance = (square - apart**2).clamp(min=0).float()
        std = (variance + eps).sqrt()
        scale = weight / std
        offset = bias - mean * scale
        y = torch.empty_like(x)
        library().normalize(
            *map(_at, (x, residual, scale, offset)), ctypes.c_int64(relu), *_sizes(x), _at(y)
        )
        ctx.save_for_backward(x, y if relu else None, weight, mean, std)
        ctx.has_residual = residual is not None
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        *maps, weight, mean, std = ctx.saved_tensors
        # Hooks of saved tensors may have laid them out otherwise, and dy is as it comes.
        x, y, dy = (
            each if each is None else each.contiguous(memory_format=torch.channels_last)
            for each in (*maps, dy)
        )
        pixels = x.numel() // x.shape[1]
        passed = dy if y is None else torch.empty_like(dy)
        dbias, product = _totals(x, y, dy, mean, passed).float()
        dweight = product / std
        scale = weight / std
        of_x = -scale * dweight / (std * pixels)
        constant = -scale * dbias / pixels - of_x * mean
        dx = passed if y is not None and not ctx.has_residual else torch.empty_like(dy)
        library().differentiate(*map(_at, (x, passed, scale, of_x, constant)), *_sizes(x), _at(dx))
        return dx, passed if ctx.has_residual else None, dweight, dbias, None, None


def _at(part: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if part is None else part.data_ptr())


def _sizes(x: Tensor) -> tuple[ctypes.c_int64, ...]:
    """Pixels, channels and threads."""
    channels = x.shape[1]
    return tuple(map(ctypes.c_int64, (x.numel() // channels, channels, torch.get_num_threads())))


def _totals(
    x: Tensor, y: Tensor | None, dy: Tensor | None, origin: Tensor, masked: Tensor | None
) -> Tensor:
    """(2, C) double: ``totalize`` of all threads together."""
    sizes = _sizes(x)
    totals = torch.zeros(sizes[2].value, 2, x.shape[1], dtype=torch.double)
    library().totalize(*map(_at, (x, y, dy, origin)), *sizes, _at(masked), _at(totals))
    return totals.sum(0)
