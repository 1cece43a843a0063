"""InfoNCE against a queue of constant negatives, in one streaming pass.

The negatives carry no gradient, so one pass over them yields everything: beside the running
log-sum-exp, the running softmax-weighted mean of the negatives *is* the query's gradient. Memory
does not depend on the length of the queue, and nothing is computed twice.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from densessl.precision import full_precision

# Rows x negatives of a block of logits: 4 MB that stay in the cache of a CPU, by measurement; on an
# accelerator 64 MB, enough work for each kernel to hide the launch of the next.
CPU_BLOCK, ACCELERATOR_BLOCK = (2048, 512), (4096, 4096)


def _stream(query: Tensor, negatives: Tensor, scale: float, with_mean: bool):
    """Log-sum-exp over the negatives for each row, and the softmax-weighted mean of the negatives.

    Returns:
        (N,) ``log sum_k exp(scale * q.n_k)`` and (N, C) ``sum_k softmax_k n_k`` (or None).
    """
    most_rows, most_negatives = CPU_BLOCK if query.device.type == "cpu" else ACCELERATOR_BLOCK
    log_sum = query.new_empty(len(query))
    mean = torch.zeros_like(query) if with_mean else None
    block = query.new_empty(min(most_rows, len(query)) * min(most_negatives, len(negatives)))
    for start in range(0, len(query), most_rows):
        part = slice(start, start + most_rows)
        scaled = query[part] * scale
        high = scaled.new_full((len(scaled), 1), -torch.inf)
        total = scaled.new_zeros(len(scaled), 1)
        for chunk in negatives.split(most_negatives):
            logits = block[: len(scaled) * len(chunk)].view(len(scaled), len(chunk))
            torch.mm(scaled, chunk.T, out=logits)
            new_high = torch.maximum(high, logits.amax(1, keepdim=True))
            weights = logits.sub_(new_high).exp_()
            shrink = (high - new_high).exp_()
            total.mul_(shrink).add_(weights.sum(1, keepdim=True))
            if with_mean:
                mean[part].mul_(shrink).addmm_(weights, chunk)
            high = new_high
        log_sum[part] = (high + total.log()).squeeze(1)
        if with_mean:
            mean[part] /= total
    return log_sum, mean


class _InfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, positive, negatives, temperature):
        scale = 1.0 / temperature
        log_negatives, mean = _stream(query, negatives, scale, ctx.needs_input_grad[0])
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
        ValueError: If the shapes do not fit, or there is no row or no negative.

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
    return _InfoNCE.apply(query, positive, negatives.detach(), temperature)
