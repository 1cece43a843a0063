"""The losses once more: slow, obvious, straight from their equations."""

import torch


def unit(vector):
    return vector / vector.norm()


def softmax_nll(logits, own):
    """-log of the share that entry ``own`` of a list of logits has."""
    weights = [logit.exp() for logit in logits]
    return -(weights[own] / sum(weights)).log()


def nt_xent(z1, z2, temperature, group=None):
    z = [unit(row) for row in [*z1, *z2]]
    n, terms = len(z1), []
    group = 2 * list(range(n) if group is None else group)
    for i in range(2 * n):
        twin = (i + n) % (2 * n)
        others = [k for k in range(2 * n) if k == twin or group[k] != group[i]]
        logits = [z[i] @ z[k] / temperature for k in others]
        terms.append(softmax_nll(logits, others.index(twin)))
    return sum(terms) / len(terms)


def negative_cosine(p, z):
    return -sum(unit(a) @ unit(b) for a, b in zip(p, z, strict=True)) / len(p)


def batch_nce(query, keys, temperature, offset=0, group=None):
    terms = []
    group = range(len(keys)) if group is None else group
    for i, q in enumerate(query, offset):
        there = [k for k in range(len(keys)) if k == i or group[k] != group[i]]
        terms.append(softmax_nll([q @ keys[k] / temperature for k in there], there.index(i)))
    return sum(terms) / len(terms)


def barlow_twins(z1, z2, lambd):
    n, dim = z1.shape

    def standard(z):
        mean = sum(z) / n
        return (z - mean) / (sum((row - mean) ** 2 for row in z) / n + 1e-5).sqrt()

    a, b, loss = standard(z1), standard(z2), 0
    for i in range(dim):
        for j in range(dim):
            c = sum(a[k, i] * b[k, j] for k in range(n)) / n
            loss = loss + ((1 - c) ** 2 if i == j else lambd * c**2)
    return loss


def vicreg(z1, z2, sim_weight=25, var_weight=25, cov_weight=1):
    n, dim = z1.shape
    invariance = sum((a - b) ** 2 for a, b in zip(z1.flatten(), z2.flatten(), strict=True))
    loss = sim_weight * invariance / (n * dim)
    for z in (z1, z2):
        mean = sum(z) / n
        cov = sum(torch.outer(row - mean, row - mean) for row in z) / (n - 1)
        hinge = [torch.clamp(1 - (cov[j, j] + 1e-4).sqrt(), min=0) for j in range(dim)]
        loss = loss + var_weight * sum(hinge) / dim / 2
        pairs = [(i, j) for i in range(dim) for j in range(dim) if i != j]
        loss = loss + cov_weight * sum(cov[i, j] ** 2 for i, j in pairs) / dim
    return loss


def triplet(anchor, positive, negative, margin):
    rows = zip(anchor, positive, negative, strict=True)
    return sum(
        torch.clamp((a - p).norm() - (a - n).norm() + margin, min=0) for a, p, n in rows
    ) / len(anchor)


def batch_hard_triplet(z1, z2, margin, group=None):
    z = [unit(row) for row in [*z1, *z2]]
    n, terms = len(z1), []
    group = 2 * list(range(n) if group is None else group)
    for i in range(2 * n):
        near = (z[i] - z[(i + n) % (2 * n)]).norm()
        far = min((z[i] - z[k]).norm() for k in range(2 * n) if group[k] != group[i])
        terms.append(torch.clamp(near - far + margin, min=0))
    return sum(terms) / len(terms)


def location_scores(g, locations, first=0):
    """For each image its scores with its own locations, and with those of every other image."""
    own, others = [], []
    for i, row in enumerate(g):
        scores = [[row @ place for place in image.T] for image in locations]
        own.append(scores.pop(i + first))
        others.append([score for image in scores for score in image])
    return own, others


def _softplus(x):
    return torch.log(1 + x.exp())


def _mean(rows):
    values = [value for row in rows for value in row]
    return sum(values) / len(values)


def infomax_jsd(own, others):
    positive = _mean([[_softplus(-t) for t in row] for row in own])
    return positive + _mean([[_softplus(t) for t in row] for row in others])


def infomax_dv(own, others):
    return torch.log(_mean([[t.exp() for t in row] for row in others])) - _mean(own)


def infomax_nce(own, others):
    rows = zip(own, others, strict=True)
    return _mean([[softmax_nll([t, *negatives], 0) for t in ts] for ts, negatives in rows])


def amdim_nce(f, locations, first=0, penalty=0.05, clip=20.0):
    own, others = location_scores(f, locations, first)
    root = len(f[0]) ** 0.5
    own, others = ([[t / root for t in row] for row in side] for side in (own, others))
    squares = [t**2 for side in (own, others) for row in side for t in row]
    clipped = ([[clip * torch.tanh(t / clip) for t in r] for r in side] for side in (own, others))
    return infomax_nce(*clipped) + penalty * sum(squares) / len(squares)
