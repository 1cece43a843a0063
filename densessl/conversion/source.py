"""The backbone of a checkpoint, whoever wrote it, whole and in bare names."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from densessl.checkpoint import CHECKPOINT_FORMAT, load_checkpoint
from densessl.conversion.architecture import OURS, describe, is_mm, kind_of
from densessl.conversion.coverage import Coverage, compare_state
from densessl.conversion.importers import HEADS, recognise, take
from densessl.conversion.safety import read_architecture
from densessl.conversion.targets import get_target
from densessl.conversion.targets.base import EXPORT_FORMAT
from densessl.conversion.targets.openmmlab import bare
from densessl.errors import UserError
from densessl.files import examples
from densessl.models.backbones import MMBackbone, TimmBackbone, build_backbone
from densessl.models.preprocessor import IMAGENET_MEAN, IMAGENET_STD
from densessl.suggest import did_you_mean

RANDOM, SUPERVISED = "random", "supervised"  # weights that have a name and no path
IMAGENET_INPUT = dict(mean=[*IMAGENET_MEAN], std=[*IMAGENET_STD], channel_order="RGB")
# Checkpoints from before torch 0.4.1 lack this counter, unused where momentum is fixed.
OLD_ABSENT = ("*.num_batches_tracked",)


@dataclass(frozen=True)
class SourceBackbone:
    """A backbone found in a checkpoint.

    Attributes:
        layout: What the checkpoint was recognised as.
        architecture: Ours, as for ``build_backbone``.
        state: Bare names (torchvision's or timm's) -> contiguous tensors, floats in float32.
        coverage: How the state covers the architecture's own net.
        meta: ``input``, and ``method``, ``step``, ``view_size`` and ``imports`` where known.
        notes: What the user should know.
    """

    layout: str
    architecture: dict
    state: dict[str, Tensor]
    coverage: Coverage
    meta: dict
    notes: tuple[str, ...] = ()

    def build(self, out_indices: Sequence[int] | None = None) -> nn.Module:
        """Our backbone with these weights.

        Args:
            out_indices: Stages to return, 0..3 = C2..C5; None leaves them to the architecture.
        """
        stages = {} if out_indices is None else {"out_indices": tuple(out_indices)}
        backbone = _built(self.architecture | stages)
        backbone.load_state_dict(self.under(backbone))
        return backbone

    def under(self, backbone: nn.Module) -> dict[str, Tensor]:
        """The state with the names that it has in ``backbone``, one of ours."""
        prefix = "model." if isinstance(backbone, TimmBackbone | MMBackbone) else ""
        return {prefix + key: value for key, value in self.state.items()}

    def as_one(self) -> "SourceBackbone":
        """The same backbone as one network, where it is several side by side.

        Raises:
            UserError: As ``SplitResNet.joined``.
        """
        if kind_of(self.architecture) != "SplitResNet":
            return self
        split = self.build()
        state, depth, notes = split.joined().state_dict(), split.depth, list(self.notes)
        if self.meta["input"]["channel_order"] == "Lab":
            notes.append("Its input is Lab, as densessl.transforms.lab.rgb_to_lab makes it.")
        architecture = {"type": "ResNet", "depth": depth, "out_indices": split.out_indices}
        return replace(
            self,
            architecture=architecture,
            state=state,
            coverage=compare_state(_bare_state(architecture), state),
            notes=(
                *notes,
                f"{len(split.parts)} networks side by side became one ResNet-{depth}, with zeros "
                "where one would see the channels of another.",
            ),
        )


def load_backbone(
    checkpoint: str | Path,
    which: str = "student",
    out_indices: tuple[int, ...] | None = None,
    trust: bool = False,
    architecture: str | None = None,
) -> nn.Module:
    """The pretrained backbone as a module.

    It wants images as its training saw them: for all methods but CMC (Lab) RGB in 0..255, less
    ``densessl.models.preprocessor.IMAGENET_MEAN``, over ``IMAGENET_STD``, unless the config had
    others (``meta["input"]`` of the checkpoint has them).

    Args:
        checkpoint: Any file that ``export_checkpoint`` reads.
        which: ``student`` or ``teacher``.
        out_indices: Stages to return, 0..3 = C2..C5; as in the pretraining by default.
        trust: See ``load_checkpoint``.
        architecture: timm's name of it, where another project's checkpoint does not say it.

    Returns:
        The backbone on the CPU, in training mode as any new module: for features call ``eval()``.

    Raises:
        UserError: The file cannot be used, or does not hold the whole backbone.
    """
    return load_source(checkpoint, which, trust, architecture).build(out_indices)


def load_source(
    checkpoint: str | Path,
    which: str = "student",
    trust: bool = False,
    architecture: str | None = None,
) -> SourceBackbone:
    """The whole backbone of a checkpoint with what is known about it, such as its input.

    ``architecture`` is timm's name of it, where another project's checkpoint does not say it.

    Raises:
        UserError: As :func:`load_backbone`.
    """
    content = load_checkpoint(checkpoint, trust)
    source = find_backbone(content, which, str(checkpoint), architecture, trust)
    if not source.coverage.complete:
        raise UserError(
            f"{checkpoint} does not hold a whole {describe(source.architecture)}:\n"
            f"{source.coverage.table()}",
            "Use a whole checkpoint of that architecture.",
        )
    return source


def torchvision_file() -> Path:
    """torchvision's supervised ResNet-50, if it has been downloaded.

    Raises:
        UserError: It has not.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    found = sorted(folder.glob("resnet50-*.pth"))
    if not found:
        raise UserError(
            f"torchvision's supervised weights are not in {folder}.",
            "Give the path of resnet50-0676ba61.pth instead (for tools/transfer.py as --init "
            "supervised=PATH). It is never downloaded "
            "silently; torchvision.models.resnet50(weights='IMAGENET1K_V1') fetches it.",
        )
    # 0676ba61 is IMAGENET1K_V1, the baseline of the literature.
    return next((path for path in found if "0676ba61" in path.name), found[0])


def find_backbone(
    checkpoint: dict,
    which: str,
    name: str,
    architecture: str | None = None,
    trust: bool = False,
) -> SourceBackbone:
    """The backbone in a checkpoint of ours, in an exported file or in another project's checkpoint.

    Args:
        checkpoint: As ``load_checkpoint`` returns it.
        which: ``student`` (what was trained) or ``teacher`` (its moving average).
        name: The file's name, for messages.
        architecture: timm's name of it, where another project's checkpoint does not say it.
        trust: See ``read_architecture``.

    Returns:
        What was found; look at its ``coverage`` before using the weights.

    Raises:
        UserError: No such backbone is in it, or its architecture is not known.
    """
    if architecture is not None and not timm.is_model(architecture):
        raise UserError(
            f"timm has no model '{architecture}'{did_you_mean(architecture, timm.list_models())}.",
            "See timm.list_models().",
        )
    if which not in ("student", "teacher"):
        raise UserError(f"There is no '{which}' to take.", "Choose student or teacher.")
    meta = checkpoint.get("meta")
    kind = meta.get("format") if isinstance(meta, dict) else None
    if kind is None:
        named = {} if architecture is None else {"arch": architecture}
        found = _foreign({**checkpoint, **named}, which, name)
    elif kind in (CHECKPOINT_FORMAT, EXPORT_FORMAT):
        if "architecture" in meta:
            meta = dict(meta, architecture=read_architecture(meta, name, trust))
        read = _ours if kind == CHECKPOINT_FORMAT else _exported
        found = read({**checkpoint, "meta": meta}, which, name)
    else:
        raise UserError(
            f"{name} has the format '{kind}', which this version of densessl does not know.",
            "Use the version of densessl that wrote it, or a newer one.",
        )
    broken = [key for key, value in found.state.items() if not torch.isfinite(value).all()]
    if broken:
        raise UserError(
            f"{len(broken)} tensors of the {which} in {name} hold NaN or infinity: {broken[0]} ...",
            "The training diverged. Use an earlier checkpoint, or train again with a lower "
            "learning rate.",
        )
    return found


def _ours(checkpoint: dict, which: str, name: str) -> SourceBackbone:
    meta, state = checkpoint["meta"], checkpoint.get("state_dict", {})
    prefixes = {"student": "backbone.", "teacher": "teacher.backbone."}
    there = [w for w, prefix in prefixes.items() if any(key.startswith(prefix) for key in state)]
    if "architecture" not in meta or not there:
        lacking = "backbone" if "architecture" in meta else "meta.architecture"
        raise UserError(
            f"{name} says it is a densessl checkpoint, but has no {lacking}.",
            "Use the file as training wrote it.",
        )
    if which not in there:
        why = f" ({meta['method']} has none)" if meta.get("method") else ""
        raise _no_such(name, which, there, why)
    prefix = prefixes[which]
    inner = prefix + _inner_prefix(meta["architecture"])
    # Whatever lies beside timm's model keeps its name, and is then an unexpected tensor.
    bare = {key.removeprefix(inner): state[key] for key in state if key.startswith(prefix)}
    layout = f"{CHECKPOINT_FORMAT}, {meta.get('method', 'unknown method')}"
    return _source(layout, meta["architecture"], bare, meta)


def _exported(checkpoint: dict, which: str, name: str) -> SourceBackbone:
    meta = checkpoint["meta"]
    lacking = {"which", "to", "architecture"} - meta.keys() or {"state_dict"} - checkpoint.keys()
    if lacking:
        raise UserError(
            f"{name} says that densessl exported it, but has no {examples(sorted(lacking))}.",
            "Use the file as tools/convert.py wrote it.",
        )
    if meta["which"] != which:
        raise _no_such(name, which, [meta["which"]], " (it is an exported file)")
    layout = f"{EXPORT_FORMAT}, written for {meta['to']}"
    state, architecture = checkpoint["state_dict"], meta["architecture"]
    state = bare(state, meta) if is_mm(architecture) else get_target(meta["to"]).restore(state)
    return _source(layout, architecture, state, meta)


def _foreign(checkpoint: dict, which: str, name: str) -> SourceBackbone:
    found = recognise(checkpoint, which, name)
    expected = _bare_state(found.architecture)
    dropped = [key for key in found.state if key.startswith(HEADS) and key not in expected]
    state = {key: value for key, value in found.state.items() if key not in dropped}
    notes = [*found.notes, "Input taken to be RGB with ImageNet's mean and deviation."]
    if dropped:
        notes.append(f"Left behind, heads and classifiers: {', '.join(dropped)}.")
    added = compare_state(expected, state, OLD_ABSENT).added_by_design
    if added:
        state.update({key: expected[key] for key in added})
        notes.append(f"Not in this old file, set to zero, unused in training: {', '.join(added)}.")
    return replace(_source(found.layout, found.architecture, state, {}), notes=tuple(notes))


def _source(layout: str, architecture: dict, state: dict, meta: dict) -> SourceBackbone:
    kept = ("method", "input", "step", "view_size", "imports")
    known = {key: meta[key] for key in kept if key in meta}
    clean = {}
    for key, value in state.items():
        # A clone: a view would drag its whole storage into the exported file.
        value = value.detach().clone(memory_format=torch.contiguous_format)
        clean[key] = value.float() if value.is_floating_point() else value
    return SourceBackbone(
        layout=layout,
        architecture=dict(architecture),
        state=clean,
        coverage=compare_state(_bare_state(architecture), clean),
        meta={"input": IMAGENET_INPUT, **known},
    )


def _inner_prefix(architecture: dict) -> str:
    """Another project's model lies under ``model`` in our wrapper; a ResNet is its own wrapper."""
    return "model." if kind_of(architecture) in ("TimmBackbone", "MMBackbone") else ""


def _bare_state(architecture: dict) -> dict[str, Tensor]:
    prefix = _inner_prefix(architecture)
    state = _built(architecture).state_dict()
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _built(architecture: dict) -> nn.Module:
    try:
        return build_backbone(architecture)
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a network does with arguments that it does not know
        ours = kind_of(architecture) in OURS
        raise UserError(
            f"The architecture {dict(architecture)} cannot be built: "
            f"{type(error).__name__}: {error}",
            "The checkpoint is damaged, or of another version of densessl."
            if ours
            else "A backbone of your own must be imported, and so registered, before its "
            "checkpoint is read, or the checkpoint read with --trust (from Python: trust=True), "
            "and it must take out_indices where stages are chosen.",
        ) from error


def _no_such(name: str, which: str, there: list[str], why: str) -> UserError:
    return UserError(
        f"{name} holds no {which}{why}; it holds the {' and the '.join(there)}.",
        take(there[0]),
    )
