"""mmseg's backbones; a ResNet plain and dilated."""

from pathlib import Path

from densessl.conversion.architecture import as_resnet, is_mm
from densessl.conversion.targets.openmmlab import OpenMMLabTarget


class Mmseg(OpenMMLabTarget):
    """mmseg's ResNet, not V1c, or the backbone of its own that was trained; its ``d8`` configs
    dilate a ResNet's last two stages."""

    name = "mmseg"
    theirs = "mmseg's own"

    def forms(self, architecture: dict) -> dict[str, dict]:
        forms = super().forms(architecture)
        # torchvision cannot dilate a BasicBlock, so there is nothing of ours to compare with.
        if not is_mm(architecture) and forms["plain"]["depth"] >= 50:
            forms["dilated d8"] = as_resnet(architecture, self.name, dilated=True)
        return forms

    def config(self, architecture: dict) -> dict:
        config = super().config(architecture)
        if architecture.get("replace_stride_with_dilation"):
            # contract_dilation: a dilated stage's first block keeps the dilation of the one before.
            config |= dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True)
        return config

    def usage(self, path: Path, architecture: dict, inputs: dict) -> str:
        # The models in mmseg's _base_ name a file of their own there.
        return f"pretrained=None,\n{super().usage(path, architecture, inputs)}"


TARGET = Mmseg()
