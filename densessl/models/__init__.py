"""Backbones, heads, memories, teacher and methods."""

from densessl.models.backbones import ResNet, TimmBackbone, build_backbone
from densessl.models.heads import DenseHead, GlobalHead
from densessl.models.memory import FeatureQueue, MemoryBank
from densessl.models.methods import CMC, PIRL, DenseCL, InstDisc, Method, MoCo, PixPro
from densessl.models.preprocessor import LabPreprocessor, ViewPreprocessor
from densessl.models.teacher import Teacher

__all__ = [
    "CMC",
    "DenseCL",
    "DenseHead",
    "FeatureQueue",
    "GlobalHead",
    "InstDisc",
    "LabPreprocessor",
    "MemoryBank",
    "Method",
    "MoCo",
    "PIRL",
    "PixPro",
    "ResNet",
    "Teacher",
    "TimmBackbone",
    "ViewPreprocessor",
    "build_backbone",
]
