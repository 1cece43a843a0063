"""Gradient checkpointing: a block's activations are computed again when its gradient is due."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


@contextmanager
def statistics_kept(block: nn.Module) -> Iterator[None]:
    """BatchNorms normalise with the batch as ever, but learn nothing from it a second time."""
    norms = [layer for layer in block.modules() if isinstance(layer, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        # SyncBatchNorm insists on a counter, so it gets one to throw away.
        count = norm.num_batches_tracked
        norm.momentum, norm.num_batches_tracked = 0.0, None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """``block(x)`` without keeping what is inside; the same values, gradients and statistics."""
    if not torch.is_grad_enabled():
        return block(x)
    return checkpoint(
        block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), statistics_kept(block))
    )
