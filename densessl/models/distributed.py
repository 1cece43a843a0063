"""What methods need of other ranks. On one rank everything here is the identity."""

import torch
from mmengine.dist import all_gather, all_reduce, get_dist_info
from torch import Tensor
from torch.autograd.function import once_differentiable


@torch.no_grad()
def gather(x: Tensor) -> Tensor:
    """The tensors of all ranks, concatenated along axis 0 in rank order, without gradient."""
    return torch.cat(all_gather(x.contiguous()))


class _GatherWithGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.size = len(x)
        return gather(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        rank, _ = get_dist_info()
        grad = grad.contiguous().clone()  # the sum is made in place
        all_reduce(grad)
        return grad[rank * ctx.size : (rank + 1) * ctx.size]


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

    Args:
        size: Images on each rank.
        seed: The same on every rank; the optimizer step will do.

    Source: MoCo (1911.05722), section 3.3.
    """

    def __init__(self, size: int, seed: int):
        self.rank, self.world_size = get_dist_info()
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(size * self.world_size, generator=generator)
        self.there, self.back = (
            index.view(self.world_size, size)[self.rank] for index in (order, order.argsort())
        )

    def shuffle(self, images: Tensor) -> Tensor:
        """This rank's part of the shuffled global batch."""
        if self.world_size == 1:
            return images
        return gather(images)[self.there.to(images.device)]

    def restore(self, *outputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs that belong to this rank's own images, all in one exchange."""
        if self.world_size == 1:
            return outputs
        flat = torch.cat([x.flatten(1) for x in outputs], dim=1)
        own = gather(flat)[self.back.to(flat.device)]
        parts = own.split([x[0].numel() for x in outputs], dim=1)
        return tuple(
            part.reshape(x.shape).to(x.dtype) for part, x in zip(parts, outputs, strict=True)
        )
