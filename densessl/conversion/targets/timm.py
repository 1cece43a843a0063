"""timm's own models."""

from pathlib import Path

import timm
from torch import Tensor, nn

from densessl.conversion.architecture import options_of, resnet_depth, timm_name
from densessl.conversion.targets.base import Target, input_note


class Timm(Target):
    """``timm.create_model(name, num_classes=0)``; our ResNets are timm's ``resnet50`` and kin."""

    name = "timm"
    theirs = "timm's model"

    def forms(self, architecture: dict) -> dict[str, dict]:
        plain = {k: v for k, v in architecture.items() if k != "replace_stride_with_dilation"}
        return {"plain": plain}

    def build(self, architecture: dict, path: Path | None = None) -> nn.Module:
        name, options = self._model(architecture)
        # checkpoint_path loads strictly.
        checkpoint = {} if path is None else {"checkpoint_path": str(path)}
        return timm.create_model(name, num_classes=0, **options, **checkpoint)

    def forward(self, model: nn.Module, images: Tensor) -> list[Tensor]:
        return model.forward_intermediates(
            images, indices=4, norm=True, output_fmt="NCHW", intermediates_only=True
        )

    def usage(self, path: Path, architecture: dict, inputs: dict) -> str:
        name, options = self._model(architecture)
        extra = "".join(f", {key}={value!r}" for key, value in options.items())
        made = f'timm.create_model("{name}", num_classes=0{extra}, checkpoint_path="{path}")'
        return f"{made}\n{input_note(inputs)}"

    def _model(self, architecture: dict) -> tuple[str, dict]:
        """timm's name and options."""
        name = timm_name(architecture)
        if name is None:
            options = {"norm_layer": "groupnorm"} if architecture.get("norm") == "gn" else {}
            return f"resnet{resnet_depth(architecture, self.name)}", options
        return name, options_of(architecture)


TARGET = Timm()
