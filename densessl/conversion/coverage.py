"""Which tensors of a state dict fit a model, by name and shape."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import Tensor

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Coverage:
    """How a state dict covers a model.

    Attributes:
        matched: Name and shape of every tensor found with the right shape.
        missing: Tensors the model has and the state dict does not.
        unexpected: Tensors the state dict has and the model does not.
        mismatched: Name -> (the model's shape, the state dict's shape).
        added_by_design: Tensors that only the model has, and is meant to have.
    """

    matched: dict[str, tuple[int, ...]]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    added_by_design: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Every tensor found its place and every place its tensor, those added by design apart."""
        gaps = self.missing or self.unexpected or self.mismatched
        return bool(self.matched) and not gaps

    @property
    def expected_count(self) -> int:
        """How many tensors the model should get from the state dict."""
        return len(self.matched) + len(self.missing) + len(self.mismatched)

    @property
    def parameters(self) -> int:
        """Number of matched weights, without BatchNorm's statistics."""
        return sum(
            math.prod(shape)
            for name, shape in self.matched.items()
            if name.rpartition(".")[2] not in BUFFERS
        )

    def summary(self) -> str:
        """One line, such as ``120/120 tensors, 11.2 M parameters``."""
        tensors = f"{len(self.matched)}/{self.expected_count} tensors"
        line = f"{tensors}, {_count(self.parameters)} parameters"
        if self.unexpected:
            line += f", {len(self.unexpected)} unexpected"
        return line

    def table(self) -> str:
        """A line for each part of the net, then every gap by name."""
        parts: dict[str, list[int]] = {}
        for name in (*self.matched, *self.missing, *self.mismatched):
            parts.setdefault(_part(name), [0, 0, 0])[1] += 1
        for name, shape in self.matched.items():
            parts[_part(name)][0] += 1
            if name.rpartition(".")[2] not in BUFFERS:
                parts[_part(name)][2] += math.prod(shape)
        rows = [
            (part, f"{found}/{all_}", _count(weights), "" if found == all_ else "GAP")
            for part, (found, all_, weights) in parts.items()
        ]
        lines = _aligned([("part", "tensors", "parameters", ""), *rows])
        for title, names in (
            ("missing (the net has it, the file does not)", self.missing),
            ("unexpected (the file has it, the net does not)", self.unexpected),
            ("the net's own, by design", self.added_by_design),
        ):
            if names:
                lines += [f"{title}: {len(names)}", *(f"  {name}" for name in names)]
        if self.mismatched:
            lines.append(f"another shape: {len(self.mismatched)}")
            lines += [
                f"  {name}: the net has {_shape(theirs)}, the file {_shape(given)}"
                for name, (theirs, given) in self.mismatched.items()
            ]
        return "\n".join(lines)


def compare_state(
    expected: Mapping[str, Tensor | Iterable[int]],
    given: Mapping[str, Tensor | Iterable[int]],
    added_by_design: Iterable[str] = (),
) -> Coverage:
    """Compares what a model expects with what a state dict gives.

    Args:
        expected: The model's state dict, or name -> shape.
        given: The state dict to load, or name -> shape.
        added_by_design: Names, or shell patterns such as ``*.num_batches_tracked``, that the
            model may have alone.

    Returns:
        The comparison. Names keep the model's order.
    """
    wanted = {name: _shape_of(value) for name, value in expected.items()}
    offered = {name: _shape_of(value) for name, value in given.items()}
    patterns = tuple(added_by_design)
    absent = [name for name in wanted if name not in offered]
    added = [name for name in absent if any(fnmatchcase(name, p) for p in patterns)]
    common = [name for name in wanted if name in offered]
    return Coverage(
        matched={name: wanted[name] for name in common if wanted[name] == offered[name]},
        missing=tuple(name for name in absent if name not in set(added)),
        unexpected=tuple(name for name in offered if name not in wanted),
        mismatched={
            name: (wanted[name], offered[name]) for name in common if wanted[name] != offered[name]
        },
        added_by_design=tuple(added),
    )


def _shape_of(value: Tensor | Iterable[int]) -> tuple[int, ...]:
    return tuple(getattr(value, "shape", value))


def _part(name: str) -> str:
    """``layer3`` of ``layer3.0.conv1.weight``; ``blocks.11`` where the parts are numbered."""
    head, _, rest = name.partition(".")
    second = rest.partition(".")[0]
    return f"{head}.{second}" if head in ("blocks", "stages") and second.isdigit() else head


def _count(number: int) -> str:
    if number >= 10**6:
        return f"{number / 10**6:.1f} M"
    return f"{number / 1000:.1f} k" if number >= 1000 else str(number)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
