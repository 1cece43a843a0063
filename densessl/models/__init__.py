"""Backbones, heads, memories, teacher and methods."""

from densessl.models.backbones import ResNet, TimmBackbone, build_backbone
from densessl.models.heads import DenseHead, GlobalHead
from densessl.models.memory import FeatureQueue
from densessl.models.methods import DenseCL, Method, MoCo, PixPro
from densessl.models.preprocessor import ViewPreprocessor
from densessl.models.teacher import Teacher

__all__ = [
    "DenseCL",
    "DenseHead",
    "FeatureQueue",
    "GlobalHead",
    "Method",
    "MoCo",
    "PixPro",
    "ResNet",
    "Teacher",
    "TimmBackbone",
    "ViewPreprocessor",
    "build_backbone",
]
