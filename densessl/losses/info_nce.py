"""InfoNCE against a queue of constant negatives, in one streaming pass.

The negatives carry no gradient, so one pass over them yields everything: beside the running
log-sum-exp, the running softmax-weighted mean of the negatives *is* the query's gradient. Memory
does not depend on the length of the queue, and nothing is computed twice.
"""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from densessl.losses.checks import check_temperature
from densessl.precision import full_precision

# Rows x negatives of a block of logits: 64 MB, so that each kernel hides the launch of the next.
BLOCK = (4096, 4096)


def stream(query: Tensor, negatives: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Log-sum-exp over the negatives for each row, and the softmax-weighted mean of the negatives.

    Returns:
        (N,) ``log sum_k exp(scale * q.n_k)`` and (N, C) ``sum_k softmax_k n_k``.
    """
    log_sum, mean = query.new_empty(len(query)), torch.zeros_like(query)
    block = query.new_empty(min(BLOCK[0], len(query)) * min(BLOCK[1], len(negatives)))
    for start in range(0, len(query), BLOCK[0]):
        part = slice(start, start + BLOCK[0])
        scaled = query[part] * scale
        high = scaled.new_full((len(scaled), 1), -torch.inf)
        total = scaled.new_zeros(len(scaled), 1)
        for chunk in negatives.split(BLOCK[1]):
            logits = block[: len(scaled) * len(chunk)].view(len(scaled), len(chunk))
            torch.mm(scaled, chunk.T, out=logits)
            new_high = torch.maximum(high, logits.amax(1, keepdim=True))
            weights = logits.sub_(new_high).exp_()
            shrink = (high - new_high).exp_()
            total.mul_(shrink).add_(weights.sum(1, keepdim=True))
            mean[part].mul_(shrink).addmm_(weights, chunk)
            high = new_high
        log_sum[part] = (high + total.log()).squeeze(1)
        mean[part] /= total
    return log_sum, mean


def attend(query: Tensor, negatives: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """What ``stream`` returns, on a CPU: it is attention with the negatives as keys and values.

    PyTorch's kernel works on 256 queries at a time, one thread each: the negatives are dealt to
    "heads" until all threads have about the same to do.
    """
    slices, heads = math.ceil(len(query) / 256), 1
    while slices * heads < 4 * torch.get_num_threads() and len(negatives) % (2 * heads) == 0:
        heads *= 2
    # Contiguous: the kernel takes it that the channels of a row lie side by side.
    keys = negatives.contiguous().view(1, heads, -1, negatives.shape[1])
    means, log_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query.contiguous().expand(1, heads, -1, -1), keys, keys, scale=scale
    )  # (1, heads, N, C), (1, heads, N)
    share = log_sums.softmax(1).unsqueeze(3)
    return log_sums.logsumexp(1).squeeze(0), (share * means).sum(1).squeeze(0)


class _InfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, positive, negatives, temperature):
        scale = 1.0 / temperature
        summarise = attend if query.device.type == "cpu" else stream
        log_negatives, mean = summarise(query, negatives, scale)
        positive_logit = (query * positive).sum(1) * scale
        log_all = torch.logaddexp(positive_logit, log_negatives)
        p_positive = (positive_logit - log_all).exp().unsqueeze(1)
        p_negative = (log_negatives - log_all).exp().unsqueeze(1)
        ctx.factor = scale / max(len(query), 1)
        ctx.save_for_backward(query, positive, mean, p_positive, p_negative)
        return (log_all - positive_logit).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        query, positive, mean, p_positive, p_negative = ctx.saved_tensors
        factor = grad * ctx.factor
        d_query = d_positive = None
        # 1 - p_positive is p_negative, without the cancellation.
        if ctx.needs_input_grad[0]:
            d_query = (mean - positive) * (p_negative * factor)
        if ctx.needs_input_grad[1]:
            d_positive = query * (-p_negative * factor)
        return d_query, d_positive, None, None


@full_precision
def info_nce(
    query: Tensor, positive: Tensor, negatives: Tensor, temperature: float = 0.2
) -> Tensor:
    """Mean over rows of ``-log(exp(q.p/t) / (exp(q.p/t) + sum_k exp(q.n_k/t)))``.

    Inputs are used as given: L2-normalise them first. The gradient goes to ``query`` and
    ``positive``; ``negatives`` are constants. Computed in float32 or better, also under autocast.

    Args:
        query: (N, C).
        positive: (N, C), row i belongs to row i of ``query``.
        negatives: (K, C), shared by all rows.
        temperature: The divisor of every logit.

    Returns:
        A scalar.

    Raises:
        ValueError: If the shapes do not fit, there is no row or no negative, or the temperature is
            to be learned or not above 0.

    Source: MoCo (1911.05722), equation 1.
    """
    if query.ndim != 2 or query.shape != positive.shape or negatives.ndim != 2:
        raise ValueError(
            f"info_nce needs query (N, C), positive (N, C), negatives (K, C); got "
            f"{tuple(query.shape)}, {tuple(positive.shape)}, {tuple(negatives.shape)}"
        )
    if not len(query) or not len(negatives) or negatives.shape[1] != query.shape[1]:
        raise ValueError(
            f"info_nce got {len(query)} rows of {query.shape[1]} channels against "
            f"{len(negatives)} negatives of {negatives.shape[1]} channels"
        )
    check_temperature(temperature)
    if isinstance(temperature, Tensor) and temperature.requires_grad:
        raise ValueError("info_nce has no gradient for its temperature")
    return _InfoNCE.apply(query, positive, negatives.detach(), temperature)
