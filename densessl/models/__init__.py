"""Backbones, heads, memories, teacher and methods."""

from densessl.models.backbones import ResNet, TimmBackbone, build_backbone
from densessl.models.heads import DenseHead, GlobalHead
from densessl.models.memory import FeatureQueue, MemoryBank
from densessl.models.methods import DenseCL, InstDisc, Method, MoCo, PixPro
from densessl.models.preprocessor import ViewPreprocessor
from densessl.models.teacher import Teacher

__all__ = [
    "DenseCL",
    "DenseHead",
    "FeatureQueue",
    "GlobalHead",
    "InstDisc",
    "MemoryBank",
    "Method",
    "MoCo",
    "PixPro",
    "ResNet",
    "Teacher",
    "TimmBackbone",
    "ViewPreprocessor",
    "build_backbone",
]
