"""What a comparison consists of, and its folder."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densessl.errors import UserError
from densessl.files import LOCK, locked, make_folder, write_json
from densessl.numeric import is_whole
from densessl.structures import SEEDS


@dataclass(frozen=True)
class Run:
    """One fine-tuning job: an initialisation, a seed and a share of the labels.

    Attributes:
        init: Name of the initialisation.
        seed: Of the head's weights, the data order and the label subset.
        fraction: Share of the labelled training images, in (0, 1].
        predicts: Whether it draws sample predictions and keeps its weights.
    """

    init: str
    seed: int
    fraction: float
    predicts: bool

    @property
    def name(self) -> str:
        """Folder name."""
        return f"{self.init}_labels{self.fraction:g}_seed{self.seed}"

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.init}, {100 * self.fraction:g} % of the labels, seed {self.seed}"


def check_request(inits: dict[str, str], seeds: list[int], fractions: list[float]) -> None:
    """Checks what the user asked for.

    Raises:
        UserError: A name, seed or fraction cannot be used.
    """
    for name in inits:
        if not re.fullmatch(r"[\w.+-]+", name):
            raise UserError(
                f"The name '{name}' of --init cannot be a folder name.",
                "Use letters, digits and . _ + - only.",
            )
    usable = all(is_whole(seed) and seed in SEEDS for seed in seeds)
    if not seeds or len(set(seeds)) < len(seeds) or not usable:
        raise UserError(
            f"The seeds {seeds} cannot be used.",
            f"Give different whole numbers from 0 to {SEEDS[-1]}.",
        )
    if not fractions or len(set(fractions)) < len(fractions):
        raise UserError(f"The label fractions {fractions} repeat.", "Name each once.")
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise UserError(
                f"The label fraction {fraction} is not in (0, 1].",
                "Write 10 % of the labels as 0.1, all of them as 1.",
            )


def runs_of(inits: list[str], seeds: list[int], fractions: list[float]) -> Iterator[Run]:
    """All jobs. Those to compare with each other come together, so that a stopped plan compares."""
    for seed in seeds:
        for fraction in sorted(fractions, reverse=True):
            for init in inits:
                yield Run(init, seed, fraction, seed == seeds[0] and fraction == max(fractions))


def text_hash(text: str) -> str:
    """Short hash of a config's text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def alone_in(work_dir: Path) -> Iterator[None]:
    """Takes the folder of a comparison, created if missing, and keeps other calls out of it.

    Raises:
        UserError: Another one works there, or it is no folder of ours.
    """
    foreign = work_dir.exists() and not (work_dir / "plan.json").exists()
    if foreign and (not work_dir.is_dir() or {p.name for p in work_dir.iterdir()} - {LOCK}):
        raise UserError(
            f"{work_dir} exists and was not made by tools/transfer.py.",
            "Choose an empty or a new folder with --work-dir.",
        )
    busy = UserError(
        f"Another tools/transfer.py works in {work_dir}.",
        "Wait until it has finished, or choose another --work-dir.",
    )
    with locked(make_folder(work_dir), busy):
        yield


def check_plan(work_dir: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """Compares ``plan`` with the one in ``work_dir``, if that has begun.

    A plan that begins as the other and goes on, with more seeds, initialisations or shares of the
    labels, is the same one: what was trained for either stays.

    Args:
        work_dir: The folder of the comparison, which this process is alone in.
        plan: What defines the comparison, as plain types.

    Returns:
        What ``plan.json`` is to hold: the larger of the two.

    Raises:
        UserError: It holds the jobs of another plan.
    """
    path = work_dir / "plan.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    new = json.loads(json.dumps(plan))
    for name, (_, sha) in new.get("inits", {}).items():  # the same file may lie elsewhere now
        known = old.get("inits", {}).get(name)
        if sha and known and known[1] == sha:
            new["inits"][name] = known
    smaller = {key for key in new.keys() & old.keys() if _grows(key, new[key], old[key])}
    differing = [
        key
        for key in new
        if key in old
        and old[key] != new[key]
        and key not in smaller
        and not _grows(key, old[key], new[key])
    ]
    if differing and (work_dir / "runs").exists():
        changes = "\n".join(
            f"  {key}: there {_short(old[key])}, now {_short(new[key])}" for key in differing
        )
        raise UserError(
            f"{work_dir} holds another comparison:\n{changes}",
            "Choose a new --work-dir, or repeat the earlier command to go on with that one; more "
            "seeds, initialisations and smaller shares of the labels may follow the earlier ones.",
        )
    if differing:  # nothing was trained yet: start afresh
        return new
    return {**old, **{key: value for key, value in new.items() if key not in smaller}}


def open_plan(work_dir: Path, plan: dict[str, Any]) -> None:
    """Writes ``plan.json``; arguments and errors as of ``check_plan``."""
    write_json(check_plan(work_dir, plan), work_dir / "plan.json")


def _grows(key: str, old: Any, new: Any) -> bool:
    """Whether the jobs of the old plan are among the new one's, as they were."""
    if key == "seeds":  # the first one draws pictures
        return new[: len(old)] == old
    if key == "label_fractions":  # so does the largest share
        return {*old} <= {*new} and max(old) == max(new)
    if key == "inits":  # random weights get the input of the first checkpoint
        known = list(old.items())
        return list(new.items())[: len(known)] == known and any(sha for _, (_, sha) in known)
    return False


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 200 else text[:197] + "..."
