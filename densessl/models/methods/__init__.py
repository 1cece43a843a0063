"""One file a method."""

from densessl.models.methods.amdim import AMDIM
from densessl.models.methods.barlow_twins import BarlowTwins
from densessl.models.methods.base import Method
from densessl.models.methods.byol import BYOL
from densessl.models.methods.cmc import CMC
from densessl.models.methods.cpc import CPC
from densessl.models.methods.densecl import DenseCL
from densessl.models.methods.dim import DIM
from densessl.models.methods.instdisc import InstDisc
from densessl.models.methods.jigsaw import Jigsaw
from densessl.models.methods.moco import MoCo
from densessl.models.methods.mocov3 import MoCoV3
from densessl.models.methods.nnclr import NNCLR
from densessl.models.methods.pirl import PIRL
from densessl.models.methods.pixpro import PixPro
from densessl.models.methods.rotnet import RotNet
from densessl.models.methods.simclr import SimCLR
from densessl.models.methods.simsiam import SimSiam
from densessl.models.methods.two_view import TwoView
from densessl.models.methods.vicreg import VICReg

__all__ = [
    "AMDIM",
    "BYOL",
    "BarlowTwins",
    "CMC",
    "CPC",
    "DIM",
    "DenseCL",
    "InstDisc",
    "Jigsaw",
    "Method",
    "MoCo",
    "MoCoV3",
    "NNCLR",
    "PIRL",
    "PixPro",
    "RotNet",
    "SimCLR",
    "SimSiam",
    "TwoView",
    "VICReg",
]
