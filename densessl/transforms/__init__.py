"""Decode, crops and device-side augmentation."""

from densessl.transforms.views import PRESETS, MultiView, View

__all__ = ["PRESETS", "MultiView", "View"]
