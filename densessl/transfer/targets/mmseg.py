"""mmseg's ResNet, plain and dilated."""

from pathlib import Path

from torch import nn

from densessl.transfer.targets.base import as_resnet, missing_package, resnet_depth
from densessl.transfer.targets.openmmlab import OpenMMLabTarget, build_resnet


class Mmseg(OpenMMLabTarget):
    """``mmseg.models.backbones.ResNet``, not V1c; its ``d8`` configs dilate the last two stages."""

    name = "mmseg"
    theirs = "mmseg's ResNet"

    def forms(self, architecture: dict) -> dict[str, dict]:
        forms = {"plain": as_resnet(architecture, self.name)}
        # torchvision cannot dilate a BasicBlock, so there is nothing of ours to compare with.
        if resnet_depth(architecture, self.name) >= 50:
            forms["dilated d8"] = as_resnet(architecture, self.name, dilated=True)
        return forms

    def build(self, architecture: dict, path: Path | None = None) -> nn.Module:
        try:
            from mmseg.models.backbones import ResNet
        except ImportError as error:
            raise missing_package(self.name, error) from error
        options = {}
        if architecture["replace_stride_with_dilation"]:
            # contract_dilation: a dilated stage's first block keeps the dilation of the one before.
            options = {
                "strides": (1, 2, 1, 1),
                "dilations": (1, 1, 2, 4),
                "contract_dilation": True,
            }
        return build_resnet(ResNet, architecture, path, **options)

    def usage(self, path: Path, architecture: dict, inputs: dict) -> str:
        # The models in mmseg's _base_ name a file of their own there.
        return f"pretrained=None,\n{super().usage(path, architecture, inputs)}"


TARGET = Mmseg()
