"""From a pretrained backbone to a better detector or segmenter, with proof and numbers.

Names are imported when they are used: conversion needs no mm package, fine-tuning needs them all.
"""

import importlib

_HOMES = {
    "Coverage": "coverage",
    "compare_state": "coverage",
    "ExportReport": "export",
    "export_checkpoint": "export",
    "load_backbone": "export",
    "verify": "export",
    "write_report": "report",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
