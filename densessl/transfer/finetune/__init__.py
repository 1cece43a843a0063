"""Fine-tuning detectors and segmenters from several initialisations and comparing them."""

from densessl.transfer.finetune.harness import finetune

__all__ = ["finetune"]
