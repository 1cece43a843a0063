"""Frozen evaluation of any backbone on any labelled folder, and a table of several."""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import nn

from densessl.conversion.source import RANDOM
from densessl.environment import environment
from densessl.errors import UserError
from densessl.evaluation.data import KINDS, LabelledData, read_data
from densessl.evaluation.features import C5, FrozenBackbone, evaluating, load_frozen
from densessl.evaluation.tasks import TASKS, Settings, run_tasks
from densessl.numeric import POSITIVE_WHOLE, WHOLE, Rule, is_real, is_whole
from densessl.score import Score
from densessl.suggest import did_you_mean

FORMAT = "densessl-evaluation/1"
OF_A_ROW = ("name", "architecture", "which", "step")


def evaluate(
    backbone: str | Path | nn.Module | FrozenBackbone,
    data: str | Path,
    tasks: Sequence[str] | None = None,
    *,
    size: int | None = None,
    k: int = 20,
    temperature: float = 0.07,
    stages: Sequence[int] = C5,
    limit: int | None = None,
    seed: int = 0,
    which: str = "student",
    classes: list[str] | None = None,
    architecture: str | None = None,
    name: str | None = None,
    batch_size: int = 64,
    workers: int = 0,
    trust: bool = False,
) -> dict[str, Any]:
    """How good the frozen features of a backbone are.

    Args:
        backbone: A checkpoint, ``random``, ``supervised`` or a module; see ``load_frozen``.
        data: A folder of classes, VOC, COCO or masks.
        tasks: Of ``knn``, ``linear``, ``crops``, ``dense`` and ``cells``; by default all that the
            data allow.
        size: Side of the images in pixels; by default that of the pretraining's views, else 128.
        k: Neighbours that vote.
        temperature: Of their votes.
        stages: Whose maps ``dense`` and ``cells`` get, 0..3 = C2..C5.
        limit: At most so many samples to learn from; what is judged on stays whole.
        seed: Of the split, of ``limit`` and of random weights.
        which: ``student`` or ``teacher``.
        classes: The classes to use; by default all.
        architecture: See ``load_frozen``.
        name: What to call it in a table; by default the method, or where it comes from.
        batch_size: Images at a time.
        workers: Processes that decode.
        trust: See ``load_checkpoint``.

    Returns:
        Plain types: ``metrics`` and ``chance`` in percent, and all they depend on.

    Raises:
        UserError: The checkpoint, the data or an option cannot be used.
    """
    found = read_for(tasks, data, classes, seed)
    frozen = load_frozen(backbone, which, stages, architecture, seed, trust)
    settings = Settings(
        frozen.size if size is None else size, k, temperature, tuple(sorted(stages)), limit, seed
    )
    result = judge(frozen, found, tasks, settings, batch_size, workers)
    known = {"source": type(frozen.module).__name__, **frozen.facts}
    facts = dict(name=name or known.get("method") or known["source"], **known)
    return dict(format=FORMAT, backbone=facts, **result, environment=environment())


def read_for(
    tasks: Sequence[str] | None, data: str | Path, classes: list[str] | None = None, seed: int = 0
) -> LabelledData:
    """Reads what ``tasks`` need of ``data``.

    Raises:
        UserError: There is no such task, or ``data`` does not have what one needs.
    """
    for task in tasks or ():
        if task not in TASKS:
            raise UserError(
                f"There is no task '{task}'{did_you_mean(task, TASKS)}.",
                f"Choose among {', '.join(TASKS)}.",
            )
    kinds = list(dict.fromkeys(TASKS[task][0] for task in tasks or TASKS))
    found = read_data(data, kinds, classes, seed)
    for task in tasks or ():
        if TASKS[task][0] not in found.sets:
            raise UserError(
                f"{data} has no {TASKS[task][0]} to evaluate '{task}' on.",
                f"It needs {KINDS[TASKS[task][0]]}; this folder serves for "
                f"{', '.join(t for t, (kind, _) in TASKS.items() if kind in found.sets)}.",
            )
    return found


def judge(
    frozen: FrozenBackbone,
    found: LabelledData,
    tasks: Sequence[str] | None,
    settings: Settings,
    batch_size: int = 64,
    workers: int = 0,
) -> dict[str, Any]:
    """The tasks' part of what ``evaluate`` returns.

    Args:
        frozen: The backbone; left in the mode it was in.
        found: From ``read_for`` with the same ``tasks``.
        tasks: By default all that the data allow.
        settings: How.
        batch_size: Images at a time.
        workers: Processes that decode.

    Raises:
        UserError: An option cannot be used, or too many images cannot be read.
    """
    check_settings(settings)
    tasks = [
        task for task, (kind, _) in TASKS.items() if kind in found.sets and task in (tasks or TASKS)
    ]
    sets = {kind: s.limited(settings.limit, settings.seed) for kind, s in found.sets.items()}
    started = time.time()
    with evaluating(frozen.module):
        figures = run_tasks(frozen, sets, tasks, settings, batch_size, workers)
    return dict(
        data=dict(
            name=found.name,
            **{
                task: dict(
                    classes=sets[TASKS[task][0]].classes,
                    train=each.train,
                    val=each.val,
                    broken=each.broken,
                    note=sets[TASKS[task][0]].note,
                    drawn=sets[TASKS[task][0]].drawn,
                )
                for task, each in figures.items()
            },
        ),
        settings=asdict(settings),
        metrics=_merged(each.metrics for each in figures.values()),
        chance=_merged(each.chance for each in figures.values()),
        by_class=_merged(each.by_class for each in figures.values()),
        seconds=time.time() - started,
    )


def table(results: Sequence[dict[str, Any]]) -> str:
    """Several results as a Markdown table: a row a backbone, mean ± sample deviation over its n.

    Results of one row have the same name, architecture, ``which`` and step; rows that share a name
    say these too.

    Raises:
        UserError: There is none, one is of another format or there twice, or they do not compare.
    """
    if not results:
        raise UserError("There are no results to put in a table.", "Run tools/test.py --out first.")
    for result in results:
        kind = result.get("format") if isinstance(result, dict) else None
        if kind != FORMAT:
            raise UserError(
                f"A result has the format {kind!r}, not '{FORMAT}'.",
                "Pass the files that this version of tools/test.py wrote.",
            )
    terms: dict[str, tuple[Any, str]] = {}  # what the results before have in common, and of which
    for result in results:
        name = result["backbone"]["name"]
        for key, value in _terms(result).items():
            known, other = terms.setdefault(key, (value, name))
            if value != known:
                raise UserError(
                    f"The results do not compare: {key} is {known} for {other} and {value} for "
                    f"{name}.",
                    "Put results of the same data and settings into one table.",
                )
    metrics = list(_merged(result["metrics"] for result in results))
    rows = [["", *metrics, "n"], ["---", *["---:"] * (len(metrics) + 1)]]
    groups: dict[tuple, list[dict[str, float]]] = {}
    seen: set[tuple] = set()
    for result in results:
        key = tuple(result["backbone"].get(fact) for fact in OF_A_ROW)
        groups.setdefault(key, []).append(result["metrics"])
        random = result["backbone"]["source"] == RANDOM
        weights = result["backbone"].get("sha256") or random
        parts = (part for name, part in result["data"].items() if name != "name")
        drawn = random or any(part.get("drawn", True) for part in parts)
        seed = result["settings"]["seed"] if drawn else None  # else it changed nothing
        counted = {(*key, weights, seed, each) for each in result["metrics"]}
        if weights and counted & seen:
            raise UserError(
                f"Two results of '{key[0]}' are the same evaluation of the same weights.",
                "Pass one of them: a mean of both would look like one over two seeds.",
            )
        seen |= counted
    names = Counter(name for name, *_ in groups)
    for (name, *rest), same in groups.items():
        label = _label(name, *rest) if names[name] > 1 else name
        counts = (sum(metric in each for each in same) for metric in metrics)
        n = " / ".join(map(str, dict.fromkeys(counts)))
        rows.append([label.replace("|", r"\|"), *(_cell(same, metric) for metric in metrics), n])
    chances = [result["chance"] for result in results]
    means = (fmean(each[metric] for each in chances if metric in each) for metric in metrics)
    rows.append(["chance", *(f"{mean:.1f}" for mean in means), ""])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _terms(result: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for two results to compare, in the tasks that both have."""
    data, free = result["data"], dict(result["settings"], seed=None)
    counted = {
        f"{task}.{what}": data[task][what]
        for task in sorted(data.keys() - {"name"})
        for what in ("classes", "train", "val")
    }
    return dict(data=data["name"], **free, **counted)


def _label(name: str, architecture: str | None, which: str | None, step: int | None) -> str:
    step = None if step is None else f"step {step}"
    return ", ".join(part for part in (name, architecture, which, step) if part is not None)


def _cell(metrics: Sequence[dict[str, float]], name: str) -> str:
    return str(Score(tuple(each[name] for each in metrics if name in each)))


def _merged(parts) -> dict:
    return {key: value for part in parts for key, value in part.items()}


RULES = {
    "size": Rule("32 pixels or more", lambda v: is_whole(v) and v >= 32),
    "k": POSITIVE_WHOLE,
    "temperature": Rule("a finite number above 0", lambda v: is_real(v) and 0 < v < math.inf),
    "stages": Rule(
        "different ones among 0..3", lambda v: v and {*v} <= {0, 1, 2, 3} and len({*v}) == len(v)
    ),
    "limit": Rule(
        f"{POSITIVE_WHOLE.words}, or None", lambda v: v is None or POSITIVE_WHOLE.fits(v)
    ),
    "seed": WHOLE,
}


def check_settings(settings: Settings) -> None:
    """Raises ``UserError`` unless the settings can be."""
    for name, value in asdict(settings).items():
        if not RULES[name].fits(value):
            raise UserError(f"{name} cannot be {value}.", f"Give {RULES[name].words}.")
