"""One file a method."""

from densessl.models.methods.base import Method
from densessl.models.methods.cmc import CMC
from densessl.models.methods.densecl import DenseCL
from densessl.models.methods.instdisc import InstDisc
from densessl.models.methods.jigsaw import Jigsaw
from densessl.models.methods.moco import MoCo
from densessl.models.methods.pirl import PIRL
from densessl.models.methods.pixpro import PixPro
from densessl.models.methods.rotnet import RotNet

__all__ = [
    "CMC",
    "DenseCL",
    "InstDisc",
    "Jigsaw",
    "Method",
    "MoCo",
    "PIRL",
    "PixPro",
    "RotNet",
]
