"""From a pretrained backbone to a better detector or segmenter, with proof and numbers.

Names are imported when they are used: conversion needs no mm package, fine-tuning needs them all.
"""

import importlib

_HOMES = {
    "Coverage": "conversion.coverage",
    "compare_state": "conversion.coverage",
    "ExportReport": "conversion.export",
    "export_checkpoint": "conversion.export",
    "verify": "conversion.export",
    "load_backbone": "conversion.source",
    "write_report": "transfer.report",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"densessl.{_HOMES[name]}"), name)
