"""A tiny world for tests of methods: a small backbone, random views, one training step."""

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import DefaultScope
from torch import nn

from densessl.engine.hooks import follow_steps
from densessl.engine.optim import PrecisionOptimWrapper
from densessl.structures import ViewBatch, ViewRecord


class TinyBackbone(nn.Module):
    """Two convolutions and a BatchNorm: (B, 3, H, W) -> ((B, 12, H/4, W/4),)."""

    def __init__(self, norm: bool = True):
        super().__init__()
        self.out_channels = (12,)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=not norm),
            nn.BatchNorm2d(8) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2, padding=1),
        )

    def forward(self, x):
        return (self.layers(x),)


class TinyPyramid(TinyBackbone):
    """The same with both maps: (B, 8, H/2, W/2) and (B, 12, H/4, W/4)."""

    def __init__(self, norm: bool = True):
        super().__init__(norm)
        self.out_channels = (8, 12)

    def forward(self, x):
        first = self.layers[:3](x)
        return first, self.layers[3](first)


class Bare(BaseDataPreprocessor):
    """A preprocessor that hands on float views as they are."""

    def forward(self, data, training=False):
        return dict(batch=data)


def record(size: int, side: int) -> ViewRecord:
    """A neutral record of ``size`` views whose crops are random boxes of a 100 x 80 image."""
    corner = torch.rand(size, 2) * 30
    box = torch.cat([corner, corner + 30 + torch.rand(size, 2) * 20], 1)
    return ViewRecord(
        box=box,
        flip=torch.rand(size) < 0.5,
        source_size=torch.tensor([[100.0, 80.0]]).expand(size, -1),
        jitter=torch.tensor([[1.0, 1.0, 1.0, 0.0]]).expand(size, -1),
        jitter_order=torch.arange(4).expand(size, -1),
        gray=torch.zeros(size, dtype=torch.bool),
        blur_sigma=torch.zeros(size),
        solarize=torch.full((size,), 2.0),
    )


def views(size: int = 6, side: int = 28, count: int = 2, seed: int = 0) -> ViewBatch:
    """A batch of float64 views, already preprocessed."""
    torch.manual_seed(seed)
    return ViewBatch(
        views=tuple(torch.randn(size, 3, side, side, dtype=torch.float64) for _ in range(count)),
        records=tuple(record(size, side) for _ in range(count)),
        index=torch.arange(size),
        broken=torch.full((size,), -1),
    )


def build(method, *args, seed: int = 0, **options):
    """A float64 method on a tiny backbone, at a fixed seed."""
    torch.manual_seed(seed)
    backbone = options.pop("backbone", None) or TinyBackbone()
    with DefaultScope.overwrite_default_scope("densessl"):
        built = method(backbone, *args, **options).double().train()
    built.data_preprocessor = Bare()
    return built


def optimizer_for(method, accumulation: int = 1, lr: float = 0.1) -> PrecisionOptimWrapper:
    """SGD over what has a gradient, with the method told of every step as in training."""
    sgd = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=lr, momentum=0.9)

    follow_steps(method, sgd, method.total_steps)
    return PrecisionOptimWrapper(optimizer=sgd, precision="fp32", accumulative_counts=accumulation)
