"""The report's figures: each function returns a matplotlib figure of one result in one theme.

Figures are built without pyplot, so nothing global changes and no display is needed. An
initialisation has the same colour, marker and dash in every figure; the colours are close to Okabe
and Ito's, which stay apart for colour-blind readers.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from densessl.lettering import plain, short
from densessl.transfer.summary import percent, summarise


@dataclass(frozen=True)
class Theme:
    """Colours of a page: paper, text, quieter text, grid lines."""

    name: str
    paper: str
    ink: str
    muted: str
    grid: str


LIGHT = Theme("light", "#ffffff", "#1b1f24", "#59636e", "#e4e7eb")
DARK = Theme("dark", "#171a1f", "#e6e9ed", "#9aa4af", "#2e343c")


@dataclass(frozen=True)
class Style:
    """How an initialisation looks: its colour on light and on dark paper, marker and dash."""

    light: str
    dark: str
    marker: str
    dash: str

    def colour(self, theme: Theme) -> str:
        return self.dark if theme.name == "dark" else self.light


_RANDOM = Style("#6b7280", "#a3acb8", "s", "--")
_STYLES = (
    Style("#0072b2", "#4aa8e0", "o", "-"),
    Style("#d55e00", "#f08a3c", "D", "-"),
    Style("#008a63", "#2fbf93", "^", "-"),
    Style("#ff4da2", "#ff80fa", "v", "-"),
    Style("#cc823d", "#ffeb80", "P", "-"),
    Style("#4598e6", "#80ffff", "X", "-."),
)


def styles(results: Sequence[dict]) -> dict[str, Style]:
    """One look for each initialisation, the same in all results; random is grey."""
    names = {init["name"]: init["source"] for result in results for init in result["inits"]}
    coloured = [name for name, source in names.items() if source != "random"]
    look = {name: _style(i) for i, name in enumerate(coloured)}
    return {name: look.get(name, _RANDOM) for name in names}


def _style(number: int) -> Style:
    """The colours in turn; each further round has another dash and the markers shifted."""
    place, rounds = number % len(_STYLES), number // len(_STYLES)
    if not rounds:
        return _STYLES[place]
    marker = _STYLES[(place + rounds) % len(_STYLES)].marker
    return replace(_STYLES[place], marker=marker, dash=("--", ":", "-.")[(rounds - 1) % 3])


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def metric_over_iterations(result: dict, look: dict[str, Style], theme: Theme) -> Figure | None:
    """The headline metric during fine-tuning: seeds thin, mean thick, one deviation as a band."""
    metric = result["metrics"][0]
    figure, axes = _single(theme, "iteration", f"{_unit(metric)} (%)")
    for init in result["inits"]:
        runs = [run["curve"] for run in _runs(result, init["name"])]
        by_iter = [{p["iter"]: p[metric] for p in c if p.get(metric) is not None} for c in runs]
        _mean_and_seeds(axes, [c for c in by_iter if c], init["name"], look, theme)
    return _finish(figure, axes, theme)


def loss_over_iterations(result: dict, look: dict[str, Style], theme: Theme) -> Figure | None:
    """The training loss, averaged over at most 60 stretches so that the trend is visible."""
    figure, axes = _single(theme, "iteration", "training loss")
    for init in result["inits"]:
        curves = [run["loss_curve"] for run in _runs(result, init["name"])]
        smooth = [_bin([(p["iter"], p["loss"]) for p in curve]) for curve in curves if curve]
        _mean_and_seeds(axes, smooth, init["name"], look, theme)
    return _finish(figure, axes, theme)


def metric_over_fraction(result: dict, look: dict[str, Style], theme: Theme) -> Figure | None:
    """The headline metric over the share of labels: seeds as dots, means joined by a line."""
    metric = result["metrics"][0]
    figure, axes = _single(theme, "share of the labels", f"{_unit(metric)} (%)")
    rows = summarise(result)
    for init in result["inits"]:
        mine = [r for r in rows if r.init == init["name"] and r.scores[metric].n]
        if not mine:
            continue
        style = look[init["name"]]
        colour = style.colour(theme)
        x = [r.label_fraction for r in mine]
        std = [0 if np.isnan(r.scores[metric].std) else r.scores[metric].std for r in mine]
        axes.errorbar(
            x,
            [r.scores[metric].mean for r in mine],
            yerr=std,
            color=colour,
            marker=style.marker,
            linestyle=style.dash,
            markersize=6,
            linewidth=2,
            elinewidth=1.2,
            capsize=3,
            label=plain(short(init["name"])),
        )
        for row in mine:
            values = row.scores[metric].values
            axes.plot([row.label_fraction] * len(values), values, ".", color=colour, alpha=0.5)
    axes.set_xscale("log")
    axes.set_xticks(sorted(result["label_fractions"]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(float(f"{value:.6g}"))))
    return _finish(figure, axes, theme)


def final_scores(
    result: dict, look: dict[str, Style], theme: Theme, fraction: float
) -> Figure | None:
    """Every metric at one label fraction: seeds as dots, mean a tick, deviation a bar."""
    metrics = result["metrics"]
    rows = [row for row in summarise(result) if row.label_fraction == fraction]
    if not any(score.n for row in rows for score in row.scores.values()):
        return None
    columns = min(3, len(metrics))
    lines = -(-len(metrics) // columns)
    height = (0.75 + 0.42 * len(rows)) * lines + 0.15
    figure = Figure(figsize=(7.6, height), facecolor=theme.paper, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for axes, metric in zip(grid.flat, metrics, strict=False):
        _dress(axes, theme)
        axes.grid(axis="y", visible=False)
        for place, row in enumerate(rows):
            score = row.scores[metric]
            if not score.n:
                continue
            style = look[row.init]
            colour = style.colour(theme)
            if score.n > 1:
                low, high = score.mean - score.std, score.mean + score.std
                axes.plot([low, high], [place, place], color=colour, linewidth=7, alpha=0.25)
            axes.plot([score.mean], [place], "|", color=colour, markersize=17, markeredgewidth=2.5)
            axes.plot(
                score.values,
                [place] * score.n,
                style.marker,
                color=colour,
                markersize=5,
                markeredgecolor=theme.paper,
                markeredgewidth=0.6,
            )
        axes.set_yticks(range(len(rows)), [plain(short(row.init)) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_title(f"{_unit(metric)} (%)", loc="left", fontsize=10, color=theme.ink)
    for axes in grid.flat[len(metrics) :]:
        axes.set_visible(False)
    return figure


def pretraining_loss(curve: list[dict], theme: Theme) -> Figure | None:
    """The pretraining loss over steps, with the loss of a guess where it is known."""
    points = [p for p in curve if p.get("loss") is not None and np.isfinite(p["loss"])]
    if not points:
        return None
    figure, axes = _single(theme, "step", "loss")
    colour = _STYLES[0].colour(theme)
    axes.plot([p["step"] for p in points], [p["loss"] for p in points], color=colour, alpha=0.35)
    smooth = _bin([(p["step"], p["loss"]) for p in points])
    axes.plot(smooth.keys(), smooth.values(), color=colour, linewidth=2, label="loss")
    chance = [p for p in points if p.get("chance") is not None]
    if chance:
        axes.plot(
            [p["step"] for p in chance],
            [p["chance"] for p in chance],
            color=theme.muted,
            linestyle=":",
            label="chance",
        )
    return _finish(figure, axes, theme)


def _runs(result: dict, init: str) -> list[dict]:
    """The finished runs of an initialisation at the largest label fraction."""
    largest = max(result["label_fractions"])
    return [
        run
        for run in result["runs"]
        if run["init"] == init and run["label_fraction"] == largest and run["status"] == "done"
    ]


def _bin(points: list[tuple[int, float]], bins: int = 60) -> dict[float, float]:
    """Averages over at most ``bins`` stretches of equal count: mean place -> mean value."""
    parts = np.array_split(np.asarray(points, float), min(bins, len(points)))
    return {float(part[:, 0].mean()): float(part[:, 1].mean()) for part in parts}


def _mean_and_seeds(
    axes, curves: list[dict[float, float]], name: str, look: dict[str, Style], theme: Theme
) -> None:
    if not curves:
        return
    style = look[name]
    colour = style.colour(theme)
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    values = np.array([[curve[x] for x in shared] for curve in curves])
    if len(curves) > 1:
        for curve in curves:
            axes.plot(curve.keys(), curve.values(), color=colour, linewidth=0.8, alpha=0.45)
        mean, std = values.mean(0), values.std(0, ddof=1)
        axes.fill_between(shared, mean - std, mean + std, color=colour, alpha=0.13, linewidth=0)
    axes.plot(
        shared,
        values.mean(0),
        color=colour,
        linestyle=style.dash,
        linewidth=2.2,
        marker=style.marker if len(shared) <= 15 else None,
        markersize=5,
        label=plain(short(name)),
    )


def _unit(metric: str) -> str:
    return plain(metric.replace("_", " "))


def _single(theme: Theme, x: str, y: str):
    figure = Figure(figsize=(5.2, 3.3), facecolor=theme.paper, layout="constrained")
    axes = figure.subplots()
    _dress(axes, theme)
    axes.set_xlabel(x, color=theme.muted)
    axes.set_ylabel(y, color=theme.muted)
    if x in ("iteration", "step"):
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    return figure, axes


def _dress(axes, theme: Theme) -> None:
    axes.set_facecolor(theme.paper)
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(theme.muted)
    axes.tick_params(colors=theme.muted, labelcolor=theme.ink, length=0, labelsize=9)


def _finish(figure: Figure, axes, theme: Theme) -> Figure | None:
    """Adds the legend; None when there was nothing to draw."""
    if not axes.lines:
        return None
    handles, labels = axes.get_legend_handles_labels()
    # As many columns as fit: all are as wide as the longest label at most.
    columns = max(1, min(3, 66 // (max(map(len, labels)) + 6)))
    lines = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + 0.19 * (lines - 1))
    axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=columns,
        frameon=False,
        labelcolor=theme.ink,
        fontsize=9,
        borderaxespad=0.2,
        handlelength=1.8,
    )
    return figure
