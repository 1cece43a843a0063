"""Dense self-supervised pretraining for detection and segmentation."""

import os
from typing import TYPE_CHECKING

from densessl.version import __version__

# Threads that wait must give up their core: beside data workers, spinning ones stall every
# operation on a CPU. OpenMP reads this when PyTorch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from densessl.conversion.source import load_backbone
    from densessl.engine.pretrain import pretrain
    from densessl.evaluation.evaluate import evaluate
    from densessl.evaluation.hook import EvaluationHook

__all__ = ["EvaluationHook", "__version__", "evaluate", "load_backbone", "pretrain"]

_HOMES = {
    "EvaluationHook": "densessl.evaluation.hook",
    "evaluate": "densessl.evaluation.evaluate",
    "load_backbone": "densessl.conversion.source",
    "pretrain": "densessl.engine.pretrain",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str):
    # PyTorch and mmengine take seconds to import; a name is fetched when it is used.
    if name not in _HOMES:
        raise AttributeError(f"module 'densessl' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
