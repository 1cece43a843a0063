"""Fine-tuning detectors and segmenters from several initialisations and comparing them.

``finetune`` is imported when it is used: its jobs, which are processes, need nothing of it.
"""

import warnings

# mmdet's metric of that name is not what is computed here.
warnings.filterwarnings("ignore", message="faster_coco_eval is not installed")

__all__ = ["finetune"]


def __getattr__(name: str):
    if name != "finetune":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from densessl.transfer.finetune.harness import finetune

    return finetune
