"""Exporting a backbone, and proving that the target's own model computes the same maps from it."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from densessl.checkpoint import load_checkpoint
from densessl.conversion.architecture import describe, images_for, is_mm, timm_name
from densessl.conversion.coverage import Coverage, compare_state
from densessl.conversion.source import SourceBackbone, find_backbone
from densessl.conversion.targets import get_target
from densessl.conversion.targets.base import EXPORT_FORMAT, Target
from densessl.errors import UserError
from densessl.files import check_free_space

TOLERANCE = 1e-4
STAGES = ("C2", "C3", "C4", "C5")


@dataclass(frozen=True)
class StageDifference:
    """How far one map of the target's model is from ours.

    Attributes:
        form: The target's form, e.g. ``dilated d8``.
        stage: ``C2`` .. ``C5``.
        shape: Of the map, (C, H, W).
        error: max |theirs - ours| / max |ours|.
    """

    form: str
    stage: str
    shape: tuple[int, ...]
    error: float

    @property
    def passed(self) -> bool:
        """Equal within ``TOLERANCE``; never true for NaN."""
        return self.error <= TOLERANCE


@dataclass(frozen=True)
class ExportReport:
    """What was exported and what the comparison found.

    Attributes:
        path: The exported file; it exists only if ``passed``.
        source: The checkpoint's name.
        to: The target.
        which: ``student`` or ``teacher``.
        layout: What the checkpoint was recognised as.
        architecture: Its name for people.
        coverage: Which tensors found their place.
        stages: The comparison of the maps; empty if the coverage has a gap.
        not_loaded: Tensors that the target's own loading left at other values.
        notes: What the user should know.
        theirs: What ours was compared with.
        usage: The lines to use the file with.
    """

    path: Path
    source: str
    to: str
    which: str
    layout: str
    architecture: str
    coverage: Coverage
    stages: tuple[StageDifference, ...] = ()
    not_loaded: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    theirs: str = ""
    usage: str = ""

    @property
    def passed(self) -> bool:
        """Every tensor has its place and every map is equal."""
        maps_equal = bool(self.stages) and all(stage.passed for stage in self.stages)
        return self.coverage.complete and not self.not_loaded and maps_equal

    def table(self) -> str:
        """The whole report as text."""
        lines = [
            f"{self.source}: {self.which} {self.architecture} ({self.layout})",
            *(f"note: {note}" for note in self.notes),
            "",
            self.coverage.table(),
            self.coverage.summary(),
        ]
        if self.not_loaded:
            lines.append(f"not loaded by {self.to}, although present: {', '.join(self.not_loaded)}")
        if self.stages:
            lines += [
                "",
                f"The same random input through our net and {self.theirs} (eval mode, float32):",
            ]
            lines.append(f"{'form':<12}{'stage':<7}{'map':<15}max relative error")
            for stage in self.stages:
                shape = "x".join(map(str, stage.shape))
                verdict = "" if stage.passed else f"  MORE THAN {TOLERANCE:g}"
                lines.append(
                    f"{stage.form:<12}{stage.stage:<7}{shape:<15}{stage.error:.1e}{verdict}"
                )
        return "\n".join(lines)

    def summary(self) -> str:
        """One line: the result."""
        if self.passed:
            worst = max(stage.error for stage in self.stages)
            return (
                f"Everything matched: {self.coverage.summary()}, largest difference {worst:.1e}. "
                f"{self.to} file: {self.path}"
            )
        reason = "the tensors do not cover the model"
        if self.coverage.complete:
            reason = f"{self.to} left tensors unloaded" if self.not_loaded else "the maps differ"
        return f"NOT matched: {reason} ({self.coverage.summary()})."


def export_checkpoint(
    src: str | Path,
    dst: str | Path,
    to: str = "mmdet",
    which: str = "student",
    trust: bool = False,
    architecture: str | None = None,
) -> ExportReport:
    """Writes a backbone as another framework's file and proves it there.

    The file gets its name only after the target's own model has loaded it and given the same maps.

    Args:
        src: A densessl checkpoint, an exported file, or a checkpoint of another project.
        dst: The file to write; must not exist.
        to: mmdet, mmseg, torchvision, timm or detectron2.
        which: ``student`` (what was trained) or ``teacher`` (its moving average).
        trust: Read ``src`` with the full unpickler, see ``load_checkpoint``.
        architecture: timm's name of it, where another project's checkpoint does not say it.

    Returns:
        The report; ``report.passed`` says whether ``dst`` was written.

    Raises:
        UserError: An input or the output cannot be used.
    """
    target, src, dst = get_target(to), Path(src), Path(dst)
    _check_output(dst, target)
    content = load_checkpoint(src, trust=trust)
    source = find_backbone(content, which, str(src), architecture, trust)
    if not source.coverage.complete:
        return _begin(dst, src, target, which, source)
    source = source.as_one()
    forms = target.forms(source.architecture)
    report = _begin(dst, src, target, which, source)
    size = sum(tensor.numel() * tensor.element_size() for tensor in source.state.values())
    check_free_space(dst.parent, size, "the exported weights")
    meta = {
        **source.meta,
        "format": EXPORT_FORMAT,
        "to": to,
        "which": which,
        "source": src.name,
        "architecture": source.architecture,
    }
    unproven = dst.with_name(f".{dst.stem}.unproven{dst.suffix}")
    try:
        theirs = is_mm(source.architecture)  # its names are the target's already
        target.write(source.state if theirs else target.rename(source.state), meta, unproven)
        report = _prove(report, unproven, target, source, forms)
        if report.passed:
            unproven.replace(dst)
        return report
    finally:
        with suppress(OSError):  # of a disk that is read-only, as the writing has said
            unproven.unlink(missing_ok=True)


def verify(exported: str | Path, source: str | Path, trust: bool = False) -> ExportReport:
    """Proves an exported file against the checkpoint it came from, again or on another machine.

    Args:
        exported: A file that :func:`export_checkpoint` wrote.
        source: The checkpoint it was made from.
        trust: Read ``source`` with the full unpickler.

    Raises:
        UserError: A file cannot be used.
    """
    exported, src = Path(exported), Path(source)
    if exported.suffix == ".pkl":
        meta = get_target("detectron2").read(exported)[1]
    else:
        meta = load_checkpoint(exported).get("meta") or {}
    if meta.get("format") != EXPORT_FORMAT:
        raise UserError(
            f"{exported} is no exported file.", "Write one with tools/convert.py, then verify it."
        )
    target, which = get_target(meta["to"]), meta["which"]
    name = timm_name(meta["architecture"])
    found = find_backbone(load_checkpoint(src, trust=trust), which, str(src), name, trust)
    if not found.coverage.complete:
        return _begin(exported, src, target, which, found)
    found = found.as_one()
    report = _begin(exported, src, target, which, found)
    return _prove(report, exported, target, found, target.forms(found.architecture))


def _check_output(dst: Path, target: Target) -> None:
    if dst.exists():
        raise UserError(
            f"{dst} exists already and is never overwritten.",
            "Choose another name, or delete it first.",
        )
    if dst.suffix not in target.suffixes:
        raise UserError(
            f"{target.name} would not read a file named {dst.name}.",
            f"Give it a name that ends in {' or '.join(target.suffixes)}.",
        )


def _begin(
    path: Path, src: Path, target: Target, which: str, source: SourceBackbone
) -> ExportReport:
    """The report before anything was compared."""
    return ExportReport(
        path=path,
        source=src.name,
        to=target.name,
        which=which,
        layout=source.layout,
        architecture=describe(source.architecture),
        coverage=source.coverage,
        theirs=target.theirs,
        notes=source.notes,
    )


def _prove(
    report: ExportReport, written: Path, target: Target, source: SourceBackbone, forms: dict
) -> ExportReport:
    """Loads ``written`` in the target's own way and compares every form, stage by stage."""
    state, _ = target.read(written)
    first = next(iter(forms.values()))
    coverage = compare_state(target.expected(first), state, target.added_by_design)
    report = replace(report, coverage=coverage)
    if not coverage.complete:
        return report
    stages, not_loaded = [], {}
    for form, architecture in forms.items():
        theirs = target.build(architecture, written)
        theirs.eval()  # of mm's models it returns None
        loaded = target.loaded(theirs)
        not_loaded |= {key: None for key in state if not torch.equal(loaded[key], state[key])}
        ours = replace(source, architecture=architecture).build((0, 1, 2, 3)).eval()
        images = images_for(ours)
        with torch.inference_mode():
            maps = zip(STAGES, ours(images), target.forward(theirs, images), strict=True)
            stages += [
                StageDifference(form, stage, tuple(our.shape[1:]), _relative_error(our, their))
                for stage, our, their in maps
            ]
    usage = target.usage(report.path, first, source.meta["input"])
    return replace(report, stages=tuple(stages), not_loaded=tuple(not_loaded), usage=usage)


def _relative_error(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    scale = ours.abs().max().clamp_min(torch.finfo(ours.dtype).tiny)
    return float((theirs - ours).abs().max() / scale)
