"""What the results of a transfer say: means, deviations, and a sentence that does not overclaim.

Everything here is a pure function of the ``results.json`` of ``tools/transfer.py``.
"""

import itertools
import math
from dataclasses import dataclass

from densessl.score import Score

RESULTS_FORMAT = "densessl-transfer/1"
TASK_NAMES = {
    "detection": "Detector",
    "instance": "Instance segmenter",
    "segmentation": "Segmenter",
}


@dataclass(frozen=True)
class Row:
    """All runs of one initialisation at one label fraction.

    Attributes:
        init: Name of the initialisation.
        label_fraction: Share of the training labels used.
        train_images: Number of training images; None when no run finished.
        scores: Metric name -> score over the runs that finished.
        failed: Number of runs that failed.
    """

    init: str
    label_fraction: float
    train_images: int | None
    scores: dict[str, Score]
    failed: int


def summarise(result: dict) -> list[Row]:
    """One row for each initialisation (in the file's order) and label fraction (ascending).

    Args:
        result: A ``results.json`` as a dict.
    """
    rows = []
    for init in result["inits"]:
        for fraction in sorted(result["label_fractions"]):
            runs = [
                run
                for run in result["runs"]
                if run["init"] == init["name"] and run["label_fraction"] == fraction
            ]
            done = [run for run in runs if run["status"] == "done"]
            scores = {
                metric: Score(tuple(_finite(run["metrics"].get(metric) for run in done)))
                for metric in result["metrics"]
            }
            images = done[0]["train_images"] if done else None
            rows.append(Row(init["name"], fraction, images, scores, len(runs) - len(done)))
    return rows


def _finite(values) -> list[float]:
    return [float(v) for v in values if v is not None and math.isfinite(v)]


def baseline(result: dict) -> str:
    """What the others are measured against: random if it is there, else the first one."""
    for init in result["inits"]:
        if init["source"] == "random":
            return init["name"]
    return result["inits"][0]["name"]


def difference(score: Score, reference: Score, words: tuple[str, str] = ("helped", "hurt")) -> str:
    """How much ``score`` lies above ``reference`` and what that is worth, in words.

    The standard error is pooled over both sets of seeds. A difference under two standard errors is
    called noise; one under the 95 % quantile of Student's t (4.3 standard errors for two seeds
    each) is called probable, not shown. The interval is that quantile's.

    Args:
        score: The initialisation in question.
        reference: The baseline.
        words: What more and what less is called.
    """
    from scipy.stats import t as student_t  # comes with the mm packages; ``Score`` does without

    gain = score.mean - reference.mean
    points = f"{signed(gain)} points"
    if min(score.n, reference.n) < 2:
        return f"{points}, one seed: no statement about noise possible"
    freedom = score.n + reference.n - 2
    squares = (score.n - 1) * score.std**2 + (reference.n - 1) * reference.std**2
    error = math.sqrt(squares / freedom * (1 / score.n + 1 / reference.n))
    margin = student_t.ppf(0.975, freedom) * error  # two-sided
    points += f" (95 %: {signed(gain - margin)} to {signed(gain + margin)})"
    if gain == 0 or abs(gain) < 2 * error:
        return f"{points}, within seed noise"
    verb = words[0] if gain > 0 else words[1]
    if abs(gain) < margin:
        return f"{points}, it probably {verb} (too few seeds to be sure)"
    return f"{points}, it {verb}"


def verdict(result: dict) -> str:
    """Says in plain words whether pretraining helped, by how much, and how sure that is.

    Args:
        result: A ``results.json`` as a dict.

    Returns:
        The sentences of ``findings`` after the name of the task.
    """
    task = TASK_NAMES.get(result["task"], result["task"])
    return f"{task}: {' '.join(findings(result))}"


def findings(result: dict) -> list[str]:
    """The sentences of the verdict: by the first metric of the file, and by that of masks.

    Args:
        result: A ``results.json`` as a dict.

    Returns:
        One sentence for each initialisation other than the baseline and each label fraction, the
        largest fraction first; without anything to compare, what was measured; then the failures.
    """
    first = result["metrics"][0]
    judged = [metric for metric in result["metrics"] if metric in (first, "mask_AP")]
    reference_name = baseline(result)
    rows = {(row.init, row.label_fraction): row for row in summarise(result)}
    others = [init["name"] for init in result["inits"] if init["name"] != reference_name]
    # What is below a pretrained baseline has not hurt.
    from_random = any(init["source"] == "random" for init in result["inits"])
    words = ("helped", "hurt") if from_random else ("is better", "is worse")
    sentences = []
    shares = sorted(result["label_fractions"], reverse=True)
    for fraction, metric in itertools.product(shares, judged):
        unit = metric.replace("_", " ")
        share = "" if fraction == 1 else f"With {percent(fraction)} of the labels, "
        reference = rows[reference_name, fraction].scores[metric]
        for name in others:
            score = rows[name, fraction].scores[metric]
            sentences.append(share + _compare(name, score, reference_name, reference, unit, words))
        if not others and reference.n:
            seeds = _seeds(reference.n)
            measured = f"{reference_name} {reference} {unit} ({seeds}), nothing to compare it with"
            sentences.append(share + measured)
        elif not others:
            sentences.append(f"{share}no run from {reference_name} finished")
    failed = sum(run["status"] != "done" for run in result["runs"])
    if failed:
        sentences.append(f"{failed} of {len(result['runs'])} runs failed")
    # Boxes and masks come of the same runs: that none finished is said once.
    return [f"{sentence}." for sentence in dict.fromkeys(sentences)]


def _compare(
    name: str, score: Score, reference_name: str, reference: Score, unit: str, words: tuple
) -> str:
    missing = [n for n, s in ((name, score), (reference_name, reference)) if not s.n]
    if missing:
        return f"no run from {' or '.join(missing)} finished, nothing to compare"
    seeds = _seeds(score.n)
    if score.n != reference.n:
        seeds = f"{score.n} and {_seeds(reference.n)}"
    against = f"{name} {score} {unit} against {reference_name} {reference} ({seeds})"
    return f"{against}: {difference(score, reference, words)}"


def signed(points: float) -> str:
    """A difference with its sign, a real minus, and no minus before zero."""
    return f"{round(points, 1) + 0.0:+.1f}".replace("-", "−")


def _seeds(n: int) -> str:
    return "one seed" if n == 1 else f"{n} seeds"


def percent(fraction: float) -> str:
    """``0.1`` -> ``10 %``, ``0.005`` -> ``0.5 %``."""
    return f"{fraction * 100:g} %"


def duration(seconds: float | None) -> str:
    """Seconds in the two largest units: ``3 min 20 s``, ``1 h 5 min``."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def provenance(result: dict) -> dict[str, str]:
    """``commit``, ``hardware``, ``versions`` and ``date`` of the runs, each different one once."""
    done = [run for run in result["runs"] if run["status"] == "done"]
    runs = [run["environment"] for run in done if run.get("environment")]
    facts: dict[str, dict[str, None]] = {}
    for made in runs:
        versions = ", ".join(
            f"{name} {each}" for name, each in (made.get("versions") or {}).items()
        )
        for key, value in dict(made, versions=versions).items():
            if value and key != "command":
                facts.setdefault(key, {})[str(value)] = None
    dates = sorted(date[:10] for date in facts.pop("date", ()))  # days
    joined = {key: "; ".join(values) for key, values in facts.items()}
    if len(runs) < len(done):  # of earlier versions
        joined["not recorded"] = f"for {len(done) - len(runs)} of {len(done)} runs"
    return joined | ({"date": " to ".join(dict.fromkeys([dates[0], dates[-1]]))} if dates else {})


def final_loss(run: dict) -> float | None:
    """The last training loss that a run logged."""
    return run["loss_curve"][-1]["loss"] if run.get("loss_curve") else None
