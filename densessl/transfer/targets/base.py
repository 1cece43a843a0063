"""What every export target can do."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from densessl.checkpoint import load_checkpoint, save_atomically
from densessl.errors import UserError
from densessl.models.backbones.resnet import LAYOUTS as RESNETS

State = dict[str, Tensor]
EXPORT_FORMAT = "densessl-export/1"


class Target(ABC):
    """One framework: its names for the tensors, its own model, its file.

    States are *bare*: torchvision's names for a ResNet, timm's for a timm model, no prefix.
    The file is a torch file with ``state_dict`` and ``meta`` unless a target overrides
    :meth:`write` and :meth:`read`.
    """

    name: str
    theirs: str  # what ours is compared with, for people
    suffixes: tuple[str, ...] = (".pth", ".pt")
    # Tensors of the target's own model that no backbone checkpoint holds.
    added_by_design: tuple[str, ...] = ()

    def forms(self, architecture: dict) -> dict[str, dict]:
        """The ways in which the target uses this backbone; by default as a plain ResNet.

        Args:
            architecture: Ours, as in a checkpoint's ``meta.architecture``.

        Returns:
            Name of the form -> our architecture that must give the same maps.

        Raises:
            UserError: The target has no such backbone.
        """
        return {"plain": as_resnet(architecture, self.name)}

    @abstractmethod
    def build(self, architecture: dict, path: Path | None = None) -> nn.Module:
        """The target's own model for one of its forms.

        Args:
            architecture: One of the values of :meth:`forms`.
            path: An exported file, to be loaded just as the target's users load it.
        """

    def forward(self, model: nn.Module, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) images -> the maps C2..C5 of the target's own model."""
        return list(model(images))

    @abstractmethod
    def usage(self, path: Path, architecture: dict, inputs: dict) -> str:
        """The lines a user writes to start from the file.

        Args:
            path: The exported file.
            architecture: The first of :meth:`forms`.
            inputs: ``mean``, ``std`` (of RGB in 0..255) and ``channel_order`` of the pretraining.
        """

    def rename(self, state: State) -> State:
        """Our names to the target's."""
        return dict(state)

    def restore(self, state: State) -> State:
        """The target's names to ours: the inverse of :meth:`rename`."""
        return dict(state)

    def expected(self, architecture: dict) -> Mapping[str, Tensor]:
        """The tensors of the target's own, freshly built model."""
        return self.build(architecture).state_dict()

    def loaded(self, model: nn.Module) -> Mapping[str, Tensor]:
        """The tensors of a model that :meth:`build` made, under the target's names."""
        return model.state_dict()

    def write(self, state: State, meta: dict, path: Path) -> None:
        """Writes the renamed state; never leaves half a file."""
        save_atomically({"state_dict": state, "meta": meta}, path)

    def read(self, path: Path) -> tuple[State, dict]:
        """State and meta of a file that :meth:`write` wrote."""
        exported = load_checkpoint(path)
        return exported["state_dict"], exported["meta"]


def resnet_depth(architecture: dict, target: str) -> int:
    """Depth of the plain ResNet that the architecture is.

    timm's plain ResNets are torchvision's, tensor for tensor.

    Raises:
        UserError: It is none, so the target has no such backbone.
    """
    kind = kind_of(architecture)
    if kind == "ResNet":
        return architecture.get("depth", 50)
    name = architecture.get("name", "").partition(".")[0]
    if is_mm(architecture):
        kind = architecture["model"]["type"]
    # An option (another activation, a stride) may change the net without changing a name.
    plain = not options_of(architecture)
    for depth in RESNETS:
        if plain and name == f"resnet{depth}":
            return depth
    raise UserError(
        f"{target} has no backbone '{name or kind}' that takes these weights.",
        f"To {target} you can export ResNet-18, 34, 50 and 101. Any timm backbone can be exported "
        "with --to timm, and one of mmdet's or mmseg's with --to mmdet or mmseg.",
    )


def as_resnet(architecture: dict, target: str, dilated: bool = False) -> dict:
    """The same ResNet as an architecture of ours, with or without mmseg's d8 dilation."""
    dilation = (False, True, True) if dilated else None
    return {
        "type": "ResNet",
        "depth": resnet_depth(architecture, target),
        "replace_stride_with_dilation": dilation,
        "norm": architecture.get("norm", "bn"),
    }


def kind_of(architecture: dict) -> str:
    """The backbone's class, without the registry's name or the class's module."""
    return architecture["type"].rpartition(".")[2]


def options_of(architecture: dict) -> dict:
    """What a timm backbone passes on to ``timm.create_model`` beside the name."""
    return {k: v for k, v in architecture.items() if k not in ("type", "name", "out_indices")}


def is_mm(architecture: dict) -> bool:
    """Whether it is a backbone of mmdet's or mmseg's, whose names are theirs already."""
    return kind_of(architecture) == "MMBackbone"


def natural_target(architecture: dict) -> str:
    """The target that surely has this backbone: mmdet where it can."""
    if is_mm(architecture):
        return "mmseg" if architecture["model"]["type"].startswith("mmseg.") else "mmdet"
    if "name" in architecture:
        try:
            resnet_depth(architecture, "mmdet")
        except UserError:
            return "timm"
    return "mmdet"


def describe(architecture: dict) -> str:
    """``ResNet-50``, with its norm where that is not BatchNorm, or timm's or mm's name."""
    if is_mm(architecture):
        architecture = dict(architecture["model"], name=architecture["model"]["type"])
    if "name" in architecture:
        options = options_of(architecture)
        return architecture["name"] + (f" {options}" if options else "")
    norm = architecture.get("norm", "bn")
    return f"{kind_of(architecture)}-{architecture.get('depth', 50)}" + (
        "" if norm == "bn" else f" with norm {norm}"
    )


def input_note(inputs: dict) -> str:
    """What the backbone must be fed, as a line of comment."""
    mean, std = numbers(inputs["mean"]), numbers(inputs["std"])
    order = inputs["channel_order"]
    kind = "Lab of densessl.transforms.lab.rgb_to_lab" if order == "Lab" else f"{order} in 0..255"
    return f"# input: {kind}, less {mean}, over {std}"


def numbers(values: list[float]) -> str:
    """A list as a person writes it: float32 turns 123.675 into 123.67500305."""
    return str([round(value, 4) for value in values])


def missing_package(target: str, error: ImportError) -> UserError:
    """The readable message when the target's framework is not there."""
    return UserError(
        f"Exporting to {target} needs {target} itself, which cannot be imported: {error}.",
        'Install it with `pip install -e ".[transfer]" --no-build-isolation` in the checkout of '
        "densessl, or run `make demo` there once, which does.",
    )


def images_for(model: nn.Module) -> Tensor:
    """A fixed random batch in the size the model takes: 64 pixels, or its own fixed size.

    Args:
        model: Our backbone.

    Returns:
        (2, 3, H, W) float32.
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, *(fixed_size(model) or (64, 64)), generator=generator)


def fixed_size(model: nn.Module) -> tuple[int, int] | None:
    """Height and width of the only images that a backbone takes; None if it takes any."""
    if getattr(model, "fixed_size", None):
        return model.fixed_size
    inner = getattr(model, "model", None)
    size = getattr(getattr(inner, "patch_embed", None), "img_size", None)
    config = getattr(inner, "pretrained_cfg", None) or {}
    if size is None and config.get("fixed_input_size"):
        size = config["input_size"][1:]
    return size and tuple(size)
