"""torchvision's own ResNets."""

from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from densessl.conversion.targets.base import Target, input_note
from densessl.models.backbones.resnet import NORMS


class Torchvision(Target):
    """``torchvision.models.resnet50()`` and its kin; the classifier stays theirs."""

    name = "torchvision"
    theirs = "torchvision's ResNet"
    added_by_design = ("fc.weight", "fc.bias")

    def build(self, architecture: dict, path: Path | None = None) -> nn.Module:
        make = getattr(torchvision.models, f"resnet{architecture['depth']}")
        model = make(weights=None, norm_layer=NORMS[architecture["norm"]])
        if path is not None:
            state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
            model.load_state_dict(state, strict=False)
        return model

    def forward(self, model: nn.Module, images: Tensor) -> list[Tensor]:
        x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
        maps = []
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            x = stage(x)
            maps.append(x)
        return maps

    def usage(self, path: Path, architecture: dict, inputs: dict) -> str:
        depth, gn = architecture["depth"], architecture["norm"] == "gn"
        norm = "norm_layer=functools.partial(torch.nn.GroupNorm, 32)" if gn else ""
        return (
            f"model = torchvision.models.resnet{depth}({norm})\n"
            f'state = torch.load("{path}")["state_dict"]\n'
            f"model.load_state_dict(state, strict=False)  # fc is new\n{input_note(inputs)}"
        )


TARGET = Torchvision()
