"""What methods need of other ranks. On one rank everything here is the identity."""

from collections.abc import Callable

import torch
from mmengine.dist import get_dist_info
from torch import Tensor
from torch.autograd.function import once_differentiable

from densessl.precision import at_least_float32


def gather(x: Tensor) -> Tensor:
    """The tensors of all ranks, concatenated along axis 0 in rank order, without gradient."""
    return start_gather(x)()


def start_gather(x: Tensor) -> Callable[[], Tensor]:
    """Sends ``x`` on its way; call what comes back for what ``gather`` would have given.

    What is needed only after the optimizer step travels during the backward pass.

    Args:
        x: (N, ...), the same shape on every rank.
    """
    x = x.detach().contiguous()
    _, world_size = get_dist_info()
    if world_size == 1:
        return lambda: x
    everyone = x.new_empty(world_size * len(x), *x.shape[1:])
    work = torch.distributed.all_gather_into_tensor(everyone, x, async_op=True)

    def wait() -> Tensor:
        work.wait()
        return everyone

    return wait


class _GatherWithGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.size = len(x)
        return gather(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        wanted = at_least_float32(grad).contiguous()
        own = wanted.new_empty(ctx.size, *wanted.shape[1:])
        torch.distributed.reduce_scatter_tensor(own, wanted)
        return own.to(grad.dtype)


def gather_with_grad(x: Tensor) -> Tensor:
    """The tensors of all ranks, concatenated along axis 0 in rank order, with gradient.

    The backward pass sums over ranks what each of them wants of ``x``. Let L be the loss of one
    process on the concatenated batch. Where every rank computes L itself, or the mean over its own
    rows whose mean over ranks is L, ``x`` gets world size times its gradient of L; the mean over
    ranks that DistributedDataParallel takes of the parameters' gradients then gives exactly that
    of L. Nothing is to be multiplied or divided anywhere.

    Args:
        x: (N, ...), the same N on every rank.

    Returns:
        (world size * N, ...).
    """
    _, world_size = get_dist_info()
    return x if world_size == 1 else _GatherWithGrad.apply(x)


class BatchShuffle:
    """Shuffle-BN: each rank encodes a random part of the global batch, so that BatchNorm
    statistics cannot give away which keys belong to which queries.

    Either way is one all-to-all of bytes, in which each row travels once, to the one rank that
    wants it.

    Args:
        size: Images on each rank.
        seed: The same on every rank; the optimizer step will do.

    Source: MoCo (1911.05722), section 3.3.
    """

    def __init__(self, size: int, seed: int):
        self.rank, self.world_size = get_dist_info()
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(size * self.world_size, generator=generator)
        # Row r: what rank r wants, as places in the global batch.
        self.there = order.view(self.world_size, size)
        self.back = order.argsort().view(self.world_size, size)

    def shuffle(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """This rank's part of the shuffled global batch, (B, ...) each of any type."""
        return self._exchange(tensors, self.there)

    def restore(self, *outputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs that belong to this rank's own images, (B, ...) each of any type."""
        return self._exchange(outputs, self.back)

    def _exchange(self, tensors: tuple[Tensor, ...], wanted: Tensor) -> tuple[Tensor, ...]:
        if self.world_size == 1:
            return tensors
        device, size = tensors[0].device, wanted.shape[1]
        owner = wanted // size
        mine = owner == self.rank
        rows = _as_bytes(tensors)
        sent = rows[(wanted[mine] % size).to(device, non_blocking=True)]
        received = torch.empty_like(rows)
        torch.distributed.all_to_all_single(
            received,
            sent,
            output_split_sizes=owner[self.rank].bincount(minlength=self.world_size).tolist(),
            input_split_sizes=mine.sum(1).tolist(),
        )
        # Rows come rank by rank, and in the order wanted within each.
        arrival = owner[self.rank].argsort(stable=True).argsort()
        return _from_bytes(received[arrival.to(device, non_blocking=True)], tensors)


def _as_bytes(tensors: tuple[Tensor, ...]) -> Tensor:
    """(B, ...) tensors of any types side by side: (B, bytes) uint8."""
    flat = [tensor.reshape(len(tensor), -1).contiguous().view(torch.uint8) for tensor in tensors]
    return torch.cat(flat, dim=1)


def _from_bytes(rows: Tensor, like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What ``_as_bytes`` made, with the types and shapes of ``like``."""
    sizes = [tensor[0].numel() * tensor.element_size() for tensor in like]
    return tuple(
        # A copy: a view of a type must begin at a multiple of its size.
        part.clone(memory_format=torch.contiguous_format).view(tensor.dtype).view(tensor.shape)
        for part, tensor in zip(rows.split(sizes, dim=1), like, strict=True)
    )
