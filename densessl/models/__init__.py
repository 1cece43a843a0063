"""Backbones, heads, memories, teacher and methods."""

from densessl.models.backbones import ResNet, TimmBackbone, build_backbone
from densessl.models.heads import DenseHead, GlobalHead
from densessl.models.memory import FeatureQueue, MemoryBank
from densessl.models.methods import (
    CMC,
    PIRL,
    DenseCL,
    InstDisc,
    Jigsaw,
    Method,
    MoCo,
    PixPro,
    RotNet,
)
from densessl.models.preprocessor import LabPreprocessor, ViewPreprocessor
from densessl.models.teacher import Teacher

__all__ = [
    "CMC",
    "DenseCL",
    "DenseHead",
    "FeatureQueue",
    "GlobalHead",
    "InstDisc",
    "Jigsaw",
    "LabPreprocessor",
    "MemoryBank",
    "Method",
    "MoCo",
    "PIRL",
    "PixPro",
    "ResNet",
    "RotNet",
    "Teacher",
    "TimmBackbone",
    "ViewPreprocessor",
    "build_backbone",
]
