"""Writes the report of a transfer: ``report.md``, a self-contained ``report.html`` and its figures.

The numbers and the verdict come from ``summary``, the figures from ``plots``; here they are
arranged once as plain text, which the HTML template and the Markdown writer both print, escaped.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from densessl.errors import UserError
from densessl.files import examples
from densessl.transfer import plots, samples
from densessl.transfer.markdown import markdown
from densessl.transfer.summary import (
    RESULTS_FORMAT,
    TASK_NAMES,
    Row,
    baseline,
    duration,
    final_loss,
    findings,
    percent,
    provenance,
    signed,
    summarise,
)

RULE = (
    "Values are percent: mean ± sample standard deviation over seeds. A difference below two "
    "pooled standard errors counts as seed noise; “probably” means above that, but short of the "
    "95\N{NO-BREAK SPACE}% level of Student's t, whose interval stands in brackets. The seeds are "
    "those of the fine-tuning: what another pretraining or other validation images would give, "
    "they do not say. Of twenty comparisons without any effect about one reads “helped” or “hurt”."
)


@dataclass(frozen=True)
class Table:
    """A table of text cells; ``numeric`` holds the indices of the columns to align right."""

    caption: str
    header: list[str]
    rows: list[list[str]]
    numeric: set[int]


@dataclass(frozen=True)
class Plot:
    """A figure of the page: its file below the report, both themes as data URIs, its words."""

    file: str
    light: str
    dark: str
    alt: str
    caption: str
    wide: bool


def write_report(
    results: list[dict],
    out_dir: str | Path,
    title: str,
    roots: list[Path],
    pretraining: dict | None = None,
) -> Path:
    """Writes ``report.md``, ``report.html`` and ``plots/*.png``; replaces those of an earlier call.

    Args:
        results: One or more ``results.json`` (format ``densessl-transfer/1``), for example of a
            detector and of a segmenter.
        out_dir: Folder of the report; created if missing.
        title: Heading of the page.
        roots: For each result the folder that its prediction paths are relative to.
        pretraining: What is known of the pretraining; every key may be missing: ``method``,
            ``architecture`` (text or the config's dict), ``images``, ``epochs``, ``steps``,
            ``seconds``, ``loss_curve`` (list of ``step``, ``loss`` and, where it is known,
            ``chance``), ``health`` (name -> figure).

    Returns:
        Path of ``report.html``.

    Raises:
        UserError: There is no result, or one is of another format.
    """
    if not results:
        raise UserError("There are no results to report.", "Run tools/transfer.py first.")
    for result in results:
        if result.get("format") != RESULTS_FORMAT:
            raise UserError(
                f"A result has the format {result.get('format')!r}, not '{RESULTS_FORMAT}'.",
                "Pass the results.json that this version of tools/transfer.py wrote.",
            )
    out_dir = Path(out_dir)
    (out_dir / "plots").mkdir(parents=True, exist_ok=True)
    look = plots.styles(results)
    tasks = [
        _task(result, f"{i + 1}_{result['task']}", Path(root), out_dir, look)
        for i, (result, root) in enumerate(zip(results, roots, strict=True))
    ]
    made = provenance(results[0])
    page = {
        "title": title,
        "subtitle": _join(
            made.get("date"), "commit" in made and f"commit {made['commit']}", made.get("hardware")
        ),
        "rule": RULE,
        "tasks": tasks,
        "looks": look,
        "pretraining": _pretraining(pretraining, out_dir) if pretraining else None,
    }
    (out_dir / "report.md").write_text(markdown(page), encoding="utf-8")
    path = out_dir / "report.html"
    path.write_text(_html(page), encoding="utf-8")
    return path


# --- The page as plain data ----------------------------------------------------------------------


def _task(result: dict, slug: str, root: Path, out_dir: Path, look: dict[str, plots.Style]) -> dict:
    rows = summarise(result)
    grid = samples.collect(result, root)
    sheet = f"plots/{slug}_predictions.png"
    if grid:
        samples.contact_sheet(grid).save(out_dir / sheet)
    return {
        "title": result["title"],
        "name": TASK_NAMES.get(result["task"], result["task"]),
        "findings": findings(result),
        "facts": _facts(result),
        "plots": _task_plots(result, rows, slug, out_dir, look),
        "scores": _score_table(result, rows),
        "samples": grid,
        "sheet": sheet if grid else None,
        "failures": _failure_table(result),
        "inits": _init_table(result),
        "runs": _run_table(result),
        "environment": _environment(result),
    }


def _facts(result: dict) -> list[str]:
    data = result["data"]
    names = list(data["classes"])
    train, val = ("?" if data[k] is None else data[k] for k in ("train_images", "val_images"))
    lines = [
        f"{data['name']}: {train} training and {val} validation "
        f"images, {len(names)} {'class' if len(names) == 1 else 'classes'}: "
        f"{examples(names, most=20)}.",
        f"Fine-tuned for {_iterations(result)} iterations with {result['config']}.",
    ]
    if data.get("metric_note"):
        lines.append(f"Metric: {data['metric_note']}")
    return lines


def _iterations(result: dict) -> str:
    """``600``; ``880 to 88,000`` where fewer labels make shorter epochs; ``?`` if no run ended."""
    counts = {r.get("iterations") for r in result["runs"] if r["status"] == "done"} - {None}
    ends = sorted({min(counts), max(counts)}) if counts else []
    return " to ".join(f"{count:,}" for count in ends) or "?"


def _task_plots(
    result: dict, rows: list[Row], slug: str, out_dir: Path, look: dict[str, plots.Style]
) -> list[Plot]:
    metric = result["metrics"][0]
    largest = max(result["label_fractions"])
    unit = metric.replace("_", " ")
    fractions = sorted(result["label_fractions"], reverse=True)
    at = {f: "" if fractions == [1] else f" with {percent(f)} of the labels" for f in fractions}
    ends = {
        f: "; ".join(f"{r.init} {r.scores[metric]}" for r in rows if r.label_fraction == f)
        for f in fractions
    }
    wanted: list[tuple[str, Callable, str, str]] = [
        (
            "final" if fraction == largest else f"final_{fraction:g}",
            partial(plots.final_scores, fraction=fraction),
            f"Final scores{at[fraction]}: seeds as points, mean as a tick, one standard deviation "
            "as a bar.",
            f"Final {unit} for each initialisation{at[fraction]}: {ends[fraction]}.",
        )
        for fraction in fractions
    ]
    final, at = ends[largest], at[largest]
    wanted += [
        (
            "curve",
            plots.metric_over_iterations,
            f"{unit} on the validation images during fine-tuning{at}; thin lines are seeds.",
            f"{unit} over iterations; it ends at {final}.",
        ),
        (
            "loss",
            plots.loss_over_iterations,
            f"Training loss{at}. A lower loss is not a better {unit}.",
            "Training loss over iterations for each initialisation.",
        ),
    ]
    if len(result["label_fractions"]) > 1:
        each = "; ".join(
            f"{r.init} at {percent(r.label_fraction)}: {r.scores[metric]}" for r in rows
        )
        wanted.append(
            (
                "fraction",
                plots.metric_over_fraction,
                f"{unit} by the share of the labels used.",
                f"{unit} over the share of labels: {each}.",
            )
        )
    made = [
        _plot(
            lambda theme, draw=draw: draw(result, look, theme=theme),
            out_dir,
            slug,
            name,
            caption,
            alt,
        )
        for name, draw, caption, alt in wanted
    ]
    return [plot for plot in made if plot]


def _plot(
    draw: Callable[[plots.Theme], Figure | None],
    out_dir: Path,
    slug: str,
    name: str,
    caption: str,
    alt: str,
) -> Plot | None:
    figures = [draw(theme) for theme in (plots.LIGHT, plots.DARK)]
    if figures[0] is None:
        return None
    light, dark = (plots.to_png(figure) for figure in figures)
    file = f"plots/{slug}_{name}.png"
    (out_dir / file).write_bytes(light)
    return Plot(
        file, _data_uri(light), _data_uri(dark), alt, caption, wide=name.startswith("final")
    )


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _score_table(result: dict, rows: list[Row]) -> Table:
    metrics, reference = result["metrics"], baseline(result)
    means = {(row.init, row.label_fraction): row.scores[metrics[0]].mean for row in rows}
    unit = metrics[0].replace("_", " ")
    compared = len(result["inits"]) > 1
    header = ["initialisation", "labels", unit, *([f"over {reference}"] if compared else [])]
    header += [*(metric.replace("_", " ") for metric in metrics[1:]), "seeds", "images"]
    cells = []
    for row in rows:
        scores = [str(row.scores[metric]) for metric in metrics]
        line = [row.init, percent(row.label_fraction), scores[0]]
        if compared:
            gain = means[row.init, row.label_fraction] - means[reference, row.label_fraction]
            line.append("–" if row.init == reference or gain != gain else signed(gain))
        seeds = str(row.scores[metrics[0]].n) + (f" ({row.failed} failed)" if row.failed else "")
        images = "–" if row.train_images is None else str(row.train_images)
        cells.append([*line, *scores[1:], seeds, images])
    return Table("Results in percent", header, cells, set(range(1, len(header))))


def _failure_table(result: dict) -> Table | None:
    failed = [run for run in result["runs"] if run["status"] != "done"]
    if not failed:
        return None
    rows = [
        [r["init"], str(r["seed"]), percent(r["label_fraction"]), r.get("error") or "unknown"]
        for r in failed
    ]
    header = ["initialisation", "seed", "labels", "error"]
    return Table("Runs without a result; they are left out of all means", header, rows, {1, 2})


def _init_table(result: dict) -> Table:
    rows = [
        [i["name"], i["source"], i.get("method") or "–", i.get("loaded") or "–"]
        for i in result["inits"]
    ]
    header = ["initialisation", "weights from", "method", "backbone tensors loaded"]
    return Table("Where each backbone came from", header, rows, set())


def _run_table(result: dict) -> Table:
    metrics = result["metrics"]
    header = ["initialisation", "seed", "labels", "status"]
    header += [*(metric.replace("_", " ") for metric in metrics), "last loss", "time"]
    rows = []
    for run in result["runs"]:
        values = [(run.get("metrics") or {}).get(metric) for metric in metrics]
        loss = final_loss(run)
        rows.append(
            [
                run["init"],
                str(run["seed"]),
                percent(run["label_fraction"]),
                run["status"],
                *("–" if value is None else f"{value:.2f}" for value in values),
                "–" if loss is None else f"{loss:.4g}",
                duration(run.get("seconds")),
            ]
        )
    return Table(result["title"], header, rows, {1, 2, *range(4, len(header))})


def _environment(result: dict) -> list[tuple[str, str]]:
    facts = {
        "command": result["environment"].get("command"),
        "config": result["config"],
        "seeds": ", ".join(map(str, result["seeds"])),
        **provenance(result),
    }
    return [(name, value) for name, value in facts.items() if value]


def _pretraining(info: dict, out_dir: Path) -> dict:
    architecture = info.get("architecture")
    if isinstance(architecture, dict):
        rest = ", ".join(f"{k}={v}" for k, v in architecture.items() if k != "type")
        architecture = f"{architecture.get('type', '')} ({rest})" if rest else architecture["type"]
    facts = [
        ("method", info.get("method")),
        ("architecture", architecture),
        ("images", info.get("images")),
        ("epochs", info.get("epochs")),
        ("steps", info.get("steps")),
        ("time", duration(info["seconds"]) if info.get("seconds") is not None else None),
        *(info.get("health") or {}).items(),
    ]
    curve = info.get("loss_curve") or []
    ends = [p["loss"] for p in curve if p.get("loss") is not None]
    words = f"Pretraining loss from {ends[0]:.3g} to {ends[-1]:.3g}." if ends else ""
    plot = _plot(
        lambda theme: plots.pretraining_loss(curve, theme),
        out_dir,
        "pretraining",
        "loss",
        "Pretraining loss; “chance” is the loss of a guess among all candidates.",
        words,
    )
    shown = [
        (str(name), f"{value:.4g}" if isinstance(value, float) else str(value))
        for name, value in facts
        if value is not None
    ]
    return {"facts": shown, "plot": plot}


def _join(*parts: str | None) -> str:
    return " · ".join(str(part) for part in parts if part)


def _html(page: dict) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html").render(page).lstrip()
