"""Backbones: thin wrappers that return feature maps."""

from torch import nn

from densessl.models.backbones.mm_backbone import MMBackbone
from densessl.models.backbones.resnet import ResNet
from densessl.models.backbones.split import SplitBackbone, SplitResNet
from densessl.models.backbones.timm_backbone import TimmBackbone
from densessl.models.backbones.vit_start import start_vit
from densessl.registry import MODELS

__all__ = [
    "MMBackbone",
    "ResNet",
    "SplitBackbone",
    "SplitResNet",
    "TimmBackbone",
    "build_backbone",
    "start_vit",
]


def build_backbone(architecture: dict) -> nn.Module:
    """Builds the backbone that a checkpoint's ``meta.architecture`` describes."""
    return MODELS.build(architecture)
