"""mmdet's ResNet."""

from pathlib import Path

from torch import nn

from densessl.transfer.targets.base import as_resnet, missing_package
from densessl.transfer.targets.openmmlab import OpenMMLabTarget, build_resnet


class Mmdet(OpenMMLabTarget):
    """``mmdet.models.backbones.ResNet`` with style ``pytorch``; its names are torchvision's."""

    name = "mmdet"
    theirs = "mmdet's ResNet"

    def forms(self, architecture: dict) -> dict[str, dict]:
        return {"plain": as_resnet(architecture, self.name)}

    def build(self, architecture: dict, path: Path | None = None) -> nn.Module:
        try:
            from mmdet.models.backbones import ResNet
        except ImportError as error:
            raise missing_package(self.name, error) from error
        return build_resnet(ResNet, architecture, path)


TARGET = Mmdet()
