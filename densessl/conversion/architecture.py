"""What an architecture is, as checkpoints describe it: a dict that ``build_backbone`` takes."""

import torch
from torch import Tensor, nn

from densessl.errors import UserError
from densessl.models.backbones.resnet import LAYOUTS as RESNETS

OURS = ("ResNet", "SplitResNet", "TimmBackbone", "MMBackbone")


def kind_of(architecture: dict) -> str:
    """The backbone's class, without the registry's name or the class's module."""
    return architecture["type"].rpartition(".")[2]


def is_mm(architecture: dict) -> bool:
    """Whether it is a backbone of mmdet's or mmseg's, whose names are theirs already."""
    return kind_of(architecture) == "MMBackbone"


def timm_name(architecture: dict) -> str | None:
    """timm's name of it, if it is one of timm's."""
    return architecture.get("name") if kind_of(architecture) == "TimmBackbone" else None


def options_of(architecture: dict) -> dict:
    """What a timm backbone passes on to ``timm.create_model`` beside the name."""
    ours = ("type", "name", "out_indices", "with_cp")
    return {key: value for key, value in architecture.items() if key not in ours}


def resnet_depth(architecture: dict, target: str) -> int:
    """Depth of the plain ResNet that the architecture is.

    timm's plain ResNets are torchvision's, tensor for tensor.

    Raises:
        UserError: It is none, so the target has no such backbone.
    """
    kind = kind_of(architecture)
    if kind == "ResNet":
        return architecture.get("depth", 50)
    name = (timm_name(architecture) or "").partition(".")[0]
    if is_mm(architecture):
        kind = architecture["model"]["type"]
    # An option (another activation, a stride) may change the net without changing a name.
    plain = not options_of(architecture)
    for depth in RESNETS:
        if plain and name == f"resnet{depth}":
            return depth
    raise UserError(
        f"{target} has no backbone '{name or kind}' that takes these weights.",
        f"To {target} you can export ResNet-18, 34, 50 and 101, as ResNet or TimmBackbone. Any "
        "TimmBackbone can be exported with --to timm, and an MMBackbone with --to mmdet or mmseg.",
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


def natural_target(architecture: dict) -> str | None:
    """The target that surely has this backbone: mmdet where it can; None for one of one's own."""
    if is_mm(architecture):
        return "mmseg" if architecture["model"]["type"].startswith("mmseg.") else "mmdet"
    if timm_name(architecture):
        try:
            resnet_depth(architecture, "mmdet")
        except UserError:
            return "timm"
    return "mmdet" if kind_of(architecture) in OURS else None


def describe(architecture: dict) -> str:
    """``ResNet-50``, with its norm where that is not BatchNorm, else its name and options."""
    kind = kind_of(architecture)
    if kind in ("ResNet", "SplitResNet"):
        norm = architecture.get("norm", "bn")
        kind = f"{kind}-{architecture.get('depth', 50)}"
        return kind if norm == "bn" else f"{kind} with norm {norm}"
    if is_mm(architecture):
        architecture = architecture["model"]
        kind = architecture["type"]
    options = options_of(architecture)
    return (timm_name(architecture) or kind) + (f" {options}" if options else "")


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


def images_for(model: nn.Module) -> Tensor:
    """A fixed random batch in the size the model takes: 64 pixels, or its own fixed size.

    Args:
        model: Our backbone.

    Returns:
        (2, 3, H, W) float32.
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, *(fixed_size(model) or (64, 64)), generator=generator)
