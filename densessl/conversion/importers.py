"""Recognising the checkpoints of other projects by where their tensors lie and how they are named.

What was recognised is always reported, never guessed silently.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt

import timm
from torch import Tensor

from densessl.errors import UserError
from densessl.models.backbones.resnet import LAYOUTS as RESNETS
from densessl.models.backbones.resnet import Bottleneck

WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
HEADS = ("classifier.", "fc.", "head.")


@dataclass(frozen=True)
class Recognised:
    """A backbone in another project's checkpoint.

    Attributes:
        layout: The layout, with the prefix and the place where it was found.
        architecture: Ours, as for ``build_backbone``.
        state: Bare names (torchvision's or timm's) -> tensors, heads and classifiers included.
        notes: What the user should know.
    """

    layout: str
    architecture: dict
    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where one layout keeps one backbone.

    Attributes:
        layout: Whose layout it is.
        path: Keys that lead to the state dict.
        prefix: How the names begin, without wrappers.
        which: ``student`` or ``teacher``.
        beside: How other names begin that must be there too.
    """

    layout: str
    path: tuple[str, ...]
    prefix: str
    which: str = "student"
    beside: str = ""


VISSL = ("classy_state_dict", "base_model", "model", "trunk")
STATE, MODEL = ("state_dict",), ("model",)
MM = "mmselfsup, mmpretrain, OpenSelfSup, DenseCL or solo-learn"
BARE = "bare names, as of torchvision, timm and Barlow Twins"
# The first that fits wins: "encoder_q.0." begins with "encoder_q.".
PLACES = (
    Place("VISSL", VISSL, "_feature_blocks."),
    Place("DINO", ("student",), "backbone."),
    Place("DINO", ("teacher",), "backbone.", "teacher"),
    Place("MoCo v3", STATE, "base_encoder."),
    Place("PixPro", MODEL, "encoder."),
    Place("PixPro", MODEL, "encoder_k.", "teacher"),
    Place("Barlow Twins", MODEL, "backbone."),
    Place("a method's own state_dict", STATE, "backbone.model."),
    Place("a method's own state_dict", STATE, "teacher.backbone.model.", "teacher", "backbone."),
    Place("a method's own state_dict", STATE, "teacher.backbone.", "teacher", "backbone."),
    Place(MM, STATE, "backbone."),
    Place("OpenSelfSup or DenseCL", STATE, "encoder_q.0."),
    Place("MoCo", STATE, "encoder_q."),
    Place("mmselfsup or mmpretrain", STATE, "encoder_k.module.0.", "teacher"),
    Place("mmselfsup or mmpretrain", STATE, "target_net.module.0.", "teacher"),
    Place("mmselfsup or mmpretrain", STATE, "momentum_encoder.module.0.", "teacher"),
    Place("OpenSelfSup or DenseCL", STATE, "encoder_k.0.", "teacher"),
    Place("OpenSelfSup", STATE, "target_net.0.", "teacher"),
    Place("solo-learn", STATE, "momentum_backbone.", "teacher"),
    Place("lightly", STATE, "backbone_momentum.", "teacher"),
    Place("MoCo", STATE, "encoder_k.", "teacher"),
    Place("MoCo v3 or old solo-learn", STATE, "momentum_encoder.", "teacher"),
    Place("old solo-learn", STATE, "encoder."),
    Place(BARE, STATE, ""),
    Place(BARE, MODEL, ""),
)
# lightly's examples put torchvision's children, without the classifier, into a Sequential.
SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
# Bare names are no sign by themselves; one of these must be among them.
BACKBONE_SIGNS = ("conv1.weight", "layer1.", "patch_embed.", "stem.", "stages.", "4.0.conv1.")
VIT_SIZES = {(192, 12): "tiny", (384, 12): "small", (768, 12): "base", (1024, 24): "large"}


def recognise(checkpoint: dict, which: str, name: str) -> Recognised:
    """Finds the backbone in another project's checkpoint.

    Args:
        checkpoint: As ``load_checkpoint`` returns it.
        which: ``student`` or ``teacher``.
        name: The file's name, for messages.

    Raises:
        UserError: There is no such backbone, or its architecture is not known.
    """
    found = _places_in(checkpoint, BACKBONE_SIGNS)
    if not found and "arch" in checkpoint:  # a network that is named may have any names
        found = _places_in(checkpoint, ("",))
    match = next((entry for entry in found if entry[0].which == which), None)
    if match is None and found:
        other = found[0][0].which
        raise UserError(
            f"{name} holds no {which}; it holds the {other} ({found[0][0].layout}).",
            take(other),
        )
    if match is None:
        raise _unknown(checkpoint, name, "no backbone")
    place, state, prefix, where = match
    layout = place.layout
    if "0.weight" in state and "4.0.conv1.weight" in state:
        layout = "lightly"
        split = ((key.partition("."), value) for key, value in state.items())
        state = {f"{SEQUENTIAL.get(i, i)}.{rest}": value for (i, _, rest), value in split}
    architecture, notes = _architecture(state, checkpoint.get("arch"), layout)
    if architecture is None:
        raise _unknown(checkpoint, name, f"{layout}'s layout, but no architecture")
    described = f"{layout}: names beginning '{prefix}' under {where}" if prefix else layout
    return Recognised(described, architecture, state, notes)


def take(which: str) -> str:
    """What to do where only ``which`` is there. tools/transfer.py takes what was converted."""
    return (
        f"Take the {which}: --which {which} of tools/convert.py and tools/test.py; for "
        "tools/transfer.py convert it first."
    )


def _places_in(checkpoint: dict, signs: tuple[str, ...]) -> list[tuple]:
    """The places that ``checkpoint`` has, each with its tensors, prefix and holder."""
    found = ((place, _tensors_at(checkpoint, place, signs)) for place in PLACES)
    return [(place, *there) for place, there in found if there]


def _unwrapped(name: str) -> str:
    while name.startswith(WRAPPERS):
        name = name.partition(".")[2]
    return name


def _tensors_at(
    checkpoint: dict, place: Place, signs: tuple[str, ...]
) -> tuple[dict[str, Tensor], str, str] | None:
    """The tensors of a place without prefix, the prefix as written, and where they lie."""
    holder, where = checkpoint, ".".join(place.path)
    for key in place.path:
        holder = holder.get(key) if isinstance(holder, Mapping) else None
    if holder is None and place.path == STATE and "model" not in checkpoint:
        holder, where = checkpoint, "the top level"  # the file is the state dict itself
    if not isinstance(holder, Mapping):
        return None
    found, written, beside = {}, "", False
    for key, value in holder.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            continue
        bare = _unwrapped(key)
        beside |= bare.startswith(place.beside)
        if bare.startswith(place.prefix):
            found[_unwrapped(bare.removeprefix(place.prefix))] = value
            written = key[: len(key) - len(bare)] + place.prefix
    if not beside:
        return None
    if not place.prefix and not any(key.startswith(signs) for key in found):
        return None
    return (found, written, where) if found else None


# timm's names, older ones too, of what is torchvision's network.
PLAIN_NAMES = re.compile(r"(tv_|ssl_|swsl_)?resnet\d+|gluon_resnet\d+_v1b")


def _architecture(state: dict, arch: object, layout: str) -> tuple[dict | None, tuple[str, ...]]:
    """The architecture that names and shapes show, and notes about it."""
    named = arch if isinstance(arch, str) and timm.is_model(arch) else None
    if depth := depth_in_names(state):
        # timm has other networks with the names and shapes of a plain ResNet (resnetaa50).
        if named and not PLAIN_NAMES.fullmatch(named.partition(".")[0]):
            return {"type": "TimmBackbone", "name": named}, ()
        return {"type": "ResNet", "depth": depth}, ()
    if vit := _vision_transformer(state):
        if vit["name"].startswith("vit_small") and layout.startswith("MoCo v3"):
            note = "MoCo v3's ViT-S has 12 heads, timm's 6: build it with num_heads=12."
            return {**vit, "num_heads": 12}, (note,)
        if named and named.partition(".")[0] != vit["name"]:
            return {"type": "TimmBackbone", "name": named}, ()
        return vit, ("Weights do not show the number of attention heads: timm's is taken.",)
    return ({"type": "TimmBackbone", "name": named} if named else None), ()


def depth_in_names(state: Mapping[str, Tensor]) -> int | None:
    """Depth of the ResNet whose blocks torchvision's names show, or None."""
    blocks = tuple(
        len({key.split(".")[1] for key in state if key.startswith(f"layer{stage}.")})
        for stage in (1, 2, 3, 4)
    )
    bottleneck = "layer1.0.conv3.weight" in state
    for depth, (block, layers) in RESNETS.items():
        if blocks == layers and bottleneck == (block is Bottleneck):
            return depth
    return None


def _vision_transformer(state: dict) -> dict | None:
    """timm's plain ViT with a class token, from the shapes of its embeddings."""
    patches, positions = state.get("patch_embed.proj.weight"), state.get("pos_embed")
    if patches is None or positions is None or "cls_token" not in state:
        return None
    width, patch = patches.shape[0], patches.shape[-1]
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    name = f"vit_{VIT_SIZES.get((width, depth))}_patch{patch}_224"
    if not timm.is_model(name):
        return None
    side = isqrt(positions.shape[1] - 1) * patch
    return {"type": "TimmBackbone", "name": name, **({} if side == 224 else {"img_size": side})}


def _unknown(checkpoint: dict, name: str, what: str) -> UserError:
    holder = next((checkpoint[k] for k in ("state_dict", "model") if k in checkpoint), checkpoint)
    keys = holder if isinstance(holder, Mapping) else checkpoint
    starts = list(dict.fromkeys(str(key).partition(".")[0] for key in keys))
    return UserError(
        f"{name} holds {what} that densessl knows; its names begin with {', '.join(starts[:8])}.",
        "Known are densessl's own files; ResNet-18, 34, 50, 101 and plain ViTs of MoCo, MoCo v3, "
        "Barlow Twins, OpenSelfSup, DenseCL, mmselfsup, mmpretrain, VISSL, lightly, solo-learn, "
        "PixPro, DINO, torchvision; and timm models that the checkpoint names under 'arch', or "
        "tools/convert.py --architecture does.",
    )
