"""Backbones, heads, memories, teacher and methods."""

from densessl.models.backbones import ResNet, TimmBackbone, build_backbone
from densessl.models.cell_match import FeatureMatch, LocationMatch
from densessl.models.dense_branch import DenseBranch
from densessl.models.heads import DenseHead, GlobalHead, MaskedContext, ShortcutHead
from densessl.models.memory import FeatureQueue, MemoryBank
from densessl.models.methods import (
    AMDIM,
    BYOL,
    CMC,
    CPC,
    DIM,
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
    "AMDIM",
    "BYOL",
    "BarlowTwins",
    "BarlowTwinsLoss",
    "BatchHardTriplet",
    "CMC",
    "CPC",
    "DIM",
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
    "MaskedContext",
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
    "ShortcutHead",
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
