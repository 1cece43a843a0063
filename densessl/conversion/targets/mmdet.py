"""mmdet's backbones."""

from densessl.conversion.architecture import is_mm
from densessl.conversion.targets.openmmlab import OpenMMLabTarget


class Mmdet(OpenMMLabTarget):
    """mmdet's ResNet with style ``pytorch``, or the backbone of its own that was trained."""

    name = "mmdet"
    theirs = "mmdet's own"

    def prefix(self, architecture: dict) -> str:
        swin = is_mm(architecture) and architecture["model"]["type"].endswith(".SwinTransformer")
        return "backbone." if swin else ""  # mmdet's Swin passes over all other names


TARGET = Mmdet()
