"""The engine: mmengine's loop, adapted to optimizer steps."""

from densessl.engine.gradients import GradientNormHook
from densessl.engine.hooks import (
    BrokenImagesHook,
    CollapseHook,
    FiniteLossHook,
    OptimizerStepHook,
    StopHook,
    Stopped,
    ThroughputHook,
)
from densessl.engine.lamb import LAMB
from densessl.engine.lars import LARS
from densessl.engine.loop import PretrainLoop
from densessl.engine.optim import PrecisionOptimWrapper, PretrainDDP, TrainableParameters
from densessl.engine.pretrain import pretrain
from densessl.engine.runner import PretrainRunner
from densessl.engine.schedule import HoldableCosineLR

__all__ = [
    "BrokenImagesHook",
    "CollapseHook",
    "FiniteLossHook",
    "GradientNormHook",
    "HoldableCosineLR",
    "LAMB",
    "LARS",
    "OptimizerStepHook",
    "PrecisionOptimWrapper",
    "PretrainDDP",
    "PretrainLoop",
    "PretrainRunner",
    "StopHook",
    "Stopped",
    "ThroughputHook",
    "TrainableParameters",
    "pretrain",
]
