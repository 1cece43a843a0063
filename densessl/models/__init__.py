"""Backbones, heads, memories, teacher and methods."""

from densessl.models.backbones import ResNet, TimmBackbone, build_backbone
from densessl.models.cell_match import FeatureMatch, LocationMatch
from densessl.models.dense_branch import DenseBranch
from densessl.models.heads import DenseHead, GlobalHead
from densessl.models.memory import FeatureQueue, MemoryBank
from densessl.models.methods import (
    BYOL,
    CMC,
    NNCLR,
    PIRL,
    BarlowTwins,
    DenseCL,
    InstDisc,
    Jigsaw,
    Method,
    MoCo,
    MoCoV3,
    PixPro,
    RotNet,
    SimCLR,
    SimSiam,
    TwoView,
    VICReg,
)
from densessl.models.pair_losses import BarlowTwinsLoss, BatchHardTriplet, NTXent, VICRegLoss
from densessl.models.preprocessor import LabPreprocessor, ViewPreprocessor
from densessl.models.teacher import Teacher

__all__ = [
    "BYOL",
    "BarlowTwins",
    "BarlowTwinsLoss",
    "BatchHardTriplet",
    "CMC",
    "DenseBranch",
    "DenseCL",
    "DenseHead",
    "FeatureMatch",
    "FeatureQueue",
    "GlobalHead",
    "InstDisc",
    "Jigsaw",
    "LabPreprocessor",
    "LocationMatch",
    "MemoryBank",
    "Method",
    "MoCo",
    "MoCoV3",
    "NNCLR",
    "NTXent",
    "PIRL",
    "PixPro",
    "ResNet",
    "RotNet",
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
