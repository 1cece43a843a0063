"""The starting points of a comparison: checkpoints, random weights, torchvision's weights."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from densessl.checkpoint import load_checkpoint, save_atomically
from densessl.conversion.architecture import is_mm
from densessl.conversion.coverage import Coverage, compare_state
from densessl.conversion.export import export_checkpoint
from densessl.conversion.importers import depth_in_names
from densessl.conversion.source import IMAGENET_INPUT, RANDOM, SUPERVISED, torchvision_file
from densessl.conversion.targets.base import EXPORT_FORMAT
from densessl.conversion.targets.openmmlab import bare
from densessl.errors import UserError
from densessl.files import sha256_of


@dataclass(frozen=True)
class Init:
    """A starting point.

    Attributes:
        name: The user's name for it.
        source: File name, ``random`` or ``torchvision``.
        method: Pretraining method, if known.
        file: The exported file to load; None for random weights.
        input: mean and std of RGB in 0..255, and channel_order.
        depth: Of the ResNet; None for random weights.
    """

    name: str
    source: str
    method: str | None
    file: str | None
    input: dict
    depth: int | None


def check_inits(inits: dict[str, str]) -> dict[str, Path | None]:
    """Name -> file to read, None for random.

    Raises:
        UserError: There is none, a file is missing, or torchvision's weights are not at hand.
    """
    if not inits:
        raise UserError(
            "No initialisation was given.", "Add --init NAME=CHECKPOINT and --init random."
        )
    files: dict[str, Path | None] = {}
    for name, source in inits.items():
        if source == RANDOM:
            files[name] = None
        elif source == SUPERVISED:
            files[name] = torchvision_file()
        else:
            files[name] = Path(source).expanduser()
            if not files[name].is_file():
                raise UserError(
                    f"The checkpoint of --init {name}={source} does not exist.",
                    "Give the path of a file; `random` and `supervised` are written without '='.",
                )
    return files


def prepare_init(
    name: str, source: str, file: Path | None, folder: Path, to: str, trust: bool
) -> Init:
    """Exports a checkpoint for mmdet or mmseg, or copies what is an exported file already.

    Args:
        name: The user's name for it.
        source: What the user gave.
        file: From :func:`check_inits`.
        folder: Where the file that the jobs read goes.
        to: ``mmdet`` or ``mmseg``.
        trust: See ``load_checkpoint``.

    Raises:
        UserError: The file cannot be used, or the export does not cover the backbone.
    """
    if file is None:
        return Init(name, RANDOM, None, None, IMAGENET_INPUT, None)
    content = load_checkpoint(file, trust=trust)
    meta = content.get("meta") or {}
    kept = folder / f"{name}_{sha256_of(file)[:12]}.pth"
    folder.mkdir(parents=True, exist_ok=True)
    if meta.get("format") == EXPORT_FORMAT and meta.get("to") in ("mmdet", "mmseg"):
        if not kept.exists():  # jobs that start later read what this one has read
            save_atomically(content, kept)
    else:
        if not kept.exists():  # from an earlier start
            report = export_checkpoint(file, kept, to=to, trust=trust)
            if not report.passed:
                raise UserError(
                    f"--init {name}: {file} does not fit {to}.\n{report.table()}",
                    "Use a checkpoint with the whole backbone.",
                )
        content = load_checkpoint(kept)
        meta = content["meta"]
    return Init(
        name=name,
        source="torchvision" if source == SUPERVISED else file.name,
        method="supervised" if source == SUPERVISED else meta.get("method"),
        file=str(kept),
        input=meta.get("input") or IMAGENET_INPUT,
        depth=None if _of_mm(meta) else depth_in_names(content["state_dict"]),
    )


def tensors_of(file: str) -> dict[str, Tensor]:
    """The backbone in an exported file, in bare names."""
    content = load_checkpoint(file)
    return bare(content["state_dict"], content["meta"])


def _of_mm(meta: dict) -> bool:
    return "architecture" in meta and is_mm(meta["architecture"])


def coverage_of(model: nn.Module, state: dict[str, Tensor]) -> Coverage:
    """How a bare backbone state covers an mmdet or mmseg model.

    The model's part is its backbone and, where the last stage lives in the RoI head (C4 detectors),
    the shared head; of that, only the extra norm is new by design.
    """
    expected = {key: value for part in _parts(model) for key, value in part.state_dict().items()}
    return compare_state(expected, state, _added_by_design(model))


def load_into(model: nn.Module, state: dict[str, Tensor]) -> Coverage:
    """Loads a backbone into an mmdet or mmseg model, whole or not at all.

    Raises:
        UserError: A tensor is missing, left over, or of another shape.
    """
    coverage = coverage_of(model, state)
    if not coverage.complete:
        raise UserError(
            f"The checkpoint does not load whole into the model: {coverage.summary()}.\n"
            f"{coverage.table()}",
            "Use a checkpoint of the config's architecture, exported whole (tools/convert.py).",
        )
    for part in _parts(model):
        own = part.state_dict()
        part.load_state_dict({key: state.get(key, own[key]) for key in own})
    return coverage


def set_init_cfg(model_cfg: dict, file: str | None) -> None:
    """Writes the exported file into every place of a model's config that must load it; None takes
    out what is there, so that the model starts from random weights."""
    init = None if file is None else dict(type="Pretrained", checkpoint=file)
    for part in _config_parts(model_cfg):
        part["init_cfg"] = init


def _parts(model: nn.Module) -> list[nn.Module]:
    shared = getattr(getattr(model, "roi_head", None), "shared_head", None)
    return [model.backbone] if shared is None else [model.backbone, shared]


def _config_parts(model_cfg: dict) -> list[dict]:
    shared = (model_cfg.get("roi_head") or {}).get("shared_head")
    return [model_cfg["backbone"]] if shared is None else [model_cfg["backbone"], shared]


def _added_by_design(model: nn.Module) -> tuple[str, ...]:
    shared = getattr(getattr(model, "roi_head", None), "shared_head", None)
    norm = getattr(shared, "norm", None)
    return () if norm is None else tuple(f"norm.{key}" for key in norm.state_dict())
