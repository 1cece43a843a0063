"""Backbones, heads, memories, teacher and methods."""

from densessl.models.backbones import ResNet, TimmBackbone, build_backbone
from densessl.models.heads import DenseHead, GlobalHead
from densessl.models.memory import FeatureQueue
from densessl.models.methods import (
    BYOL,
    NNCLR,
    BarlowTwins,
    DenseCL,
    Method,
    MoCo,
    MoCoV3,
    SimCLR,
    SimSiam,
    TwoView,
    VICReg,
)
from densessl.models.pair_losses import BarlowTwinsLoss, BatchHardTriplet, NTXent, VICRegLoss
from densessl.models.preprocessor import ViewPreprocessor
from densessl.models.teacher import Teacher

__all__ = [
    "BYOL",
    "NNCLR",
    "BarlowTwins",
    "BarlowTwinsLoss",
    "BatchHardTriplet",
    "DenseCL",
    "DenseHead",
    "FeatureQueue",
    "GlobalHead",
    "Method",
    "MoCo",
    "MoCoV3",
    "NTXent",
    "ResNet",
    "SimCLR",
    "SimSiam",
    "Teacher",
    "TimmBackbone",
    "TwoView",
    "VICReg",
    "VICRegLoss",
    "ViewPreprocessor",
    "build_backbone",
]
