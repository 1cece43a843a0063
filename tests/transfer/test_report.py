"""The report: numbers against numpy, verdicts against cases computed by hand, whole pages."""

import copy
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densessl.errors import UserError
from densessl.transfer.report import summarise, verdict, write_report
from densessl.transfer.summary import duration, percent

pytestmark = pytest.mark.slow

HOSTILE = '<script>alert("1")</script>'


def _run(init: str, seed: int, fraction: float, values: dict[str, float], iterations: int) -> dict:
    """A finished run whose curve climbs to its final values."""
    rng = np.random.default_rng([seed, round(fraction * 100), len(init)])
    headline = next(iter(values))
    steps = range(iterations // 10, iterations + 1, iterations // 10)
    return {
        "init": init,
        "seed": seed,
        "label_fraction": fraction,
        "train_images": round(240 * fraction),
        "status": "done",
        "error": None,
        "iterations": iterations,
        "seconds": 61.4 + seed,
        "metrics": values,
        "curve": [
            {"iter": i, headline: values[headline] * (1 - np.exp(-4 * i / iterations))}
            for i in steps
        ],
        "loss_curve": [
            {"iter": i, "loss": 2 * np.exp(-2 * i / iterations) + 0.4 + 0.1 * rng.standard_normal()}
            for i in range(1, iterations, 5)
        ],
        "predictions": [],
    }


def fake_result(
    task: str,
    metrics: list[str],
    scores: dict[tuple[str, float], list[float]],
    iterations: int = 600,
) -> dict:
    """A result with headline values ``scores[init, fraction][seed]``; the others follow."""
    names = list(dict.fromkeys(name for name, _ in scores))
    runs = [
        _run(
            init, seed, fraction, {m: v * (1 + 0.3 * i) for i, m in enumerate(metrics)}, iterations
        )
        for (init, fraction), values in scores.items()
        for seed, v in enumerate(values)
    ]
    return {
        "format": "densessl-transfer/1",
        "task": task,
        "title": {"detection": "Faster R-CNN R18-FPN", "segmentation": "FCN R18"}.get(task, task),
        "config": f"configs/transfer/{task}/small.py",
        "data": {
            "name": "scenes",
            "classes": ["disc", "ring", "box", "cross", "star", "triangle"],
            "train_images": 240,
            "val_images": 80,
            "metric_note": "AP averaged over IoU .50:.95, area under the curve.",
        },
        "metrics": metrics,
        "environment": {
            "commit": "0123abc",
            "hardware": "2 CPU cores",
            "versions": {"torch": "2.11.0", "mmdet": "3.5.1"},
            "command": "tools/transfer.py small.py --init densecl=densecl.pth --seeds 0 1",
            "date": "2025-01-31 12:00",
        },
        "inits": [
            {
                "name": name,
                "source": "random" if name == "random" else f"{name}.pth",
                "method": None if name == "random" else "DenseCL",
                "loaded": "0/62 tensors" if name == "random" else "62/62 tensors",
            }
            for name in names
        ],
        "seeds": list(range(max(map(len, scores.values())))),
        "label_fractions": sorted({fraction for _, fraction in scores}),
        "runs": runs,
        "ground_truth": [],
    }


def _add_predictions(result: dict, root: Path, count: int = 3) -> None:
    """Draws small pictures as the transfer harness does: the first seed, the largest fraction."""
    rng = np.random.default_rng(0)

    def draw(folder: str) -> list[str]:
        paths = [f"predictions/{folder}/{i:06d}.png" for i in range(count)]
        for path in paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            picture = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
            Image.fromarray(picture).resize((200, 160)).save(root / path)
        return paths

    result["ground_truth"] = draw("ground_truth")
    for i, run in enumerate(result["runs"]):
        if run["seed"] == 0 and run["label_fraction"] == max(result["label_fractions"]):
            run["predictions"] = draw(f"run{i}")


def _detector() -> dict:
    return fake_result(
        "detection",
        ["AP", "AP50", "AP75"],
        {
            ("densecl", 0.1): [12.0, 13.0],
            ("densecl", 1.0): [31.2, 32.4],
            ("moco", 0.1): [8.0, 9.0],
            ("moco", 1.0): [25.0, 26.5],
            ("random", 0.1): [5.0, 4.0],
            ("random", 1.0): [24.0, 25.6],
        },
    )


def _segmenter() -> dict:
    scores = {("densecl", 1.0): [40.0, 42.0], ("random", 1.0): [44.0, 45.0]}
    return fake_result("segmentation", ["mIoU", "mAcc", "aAcc"], scores)


PRETRAINING = {
    "method": "DenseCL",
    "architecture": {"type": "ResNet", "depth": 18},
    "images": 1200,
    "epochs": 20,
    "steps": 740,
    "seconds": 190.0,
    "health": {"embedding deviation": 0.0432, "dense matches agreeing": "61 %"},
    "loss_curve": [
        {"step": s, "loss": 7 - s / 300 + 0.2 * np.sin(s), "chance": 6.93}
        for s in range(0, 740, 10)
    ],
}


# --- summarise -----------------------------------------------------------------------------------


def test_summarise_equals_numpy_over_the_seeds():
    result = _detector()
    rows = {(row.init, row.label_fraction): row for row in summarise(result)}
    assert list(rows) == [(n, f) for n in ("densecl", "moco", "random") for f in (0.1, 1.0)]
    for (init, fraction), row in rows.items():
        for metric in result["metrics"]:
            values = [
                run["metrics"][metric]
                for run in result["runs"]
                if run["init"] == init and run["label_fraction"] == fraction
            ]
            score = row.scores[metric]
            assert score.n == 2
            assert score.mean == pytest.approx(np.mean(values), abs=1e-12)
            assert score.std == pytest.approx(np.std(values, ddof=1), abs=1e-12)
        assert row.train_images == round(240 * fraction)


def test_summarise_leaves_out_failed_runs_and_values_that_are_not_numbers():
    result = _segmenter()
    result["runs"][0].update(status="failed", error="out of memory", metrics={"mIoU": 99.0})
    result["runs"][3]["metrics"]["mIoU"] = float("nan")
    densecl, random = summarise(result)
    assert densecl.scores["mIoU"].values == (42.0,) and densecl.failed == 1
    assert random.scores["mIoU"].values == (44.0,) and random.failed == 0
    assert random.scores["mAcc"].n == 2
    assert str(densecl.scores["mIoU"]) == "42.0"


# --- verdict -------------------------------------------------------------------------------------


def _two(a: list[float], b: list[float], **kwargs) -> str:
    scores = {("densecl", 1.0): a, ("random", 1.0): b}
    return verdict(fake_result("detection", ["AP", "AP50"], scores), **kwargs)


def test_verdict_of_a_clear_gain():
    # deviations .849 and 1.131, pooled error of the difference 1.0, difference 7.0 > 4.3 errors
    assert _two([31.2, 32.4], [24.0, 25.6]) == (
        "Detector: densecl 31.8 ± 0.8 AP against random 24.8 ± 1.1 (2 seeds): "
        "+7.0 points, it helped."
    )


def test_verdict_of_a_loss_says_that_it_hurt():
    assert _two([20.0, 20.2], [24.0, 24.2]).endswith("−4.0 points, it hurt.")


def test_verdict_between_noise_and_certainty_says_probably():
    # both deviations 1.414, pooled error 1.414: 4.0 lies between 2 x 1.414 and 4.3 x 1.414
    assert _two([28.0, 30.0], [24.0, 26.0]).endswith(
        "+4.0 points, it probably helped (too few seeds to be sure)."
    )


@pytest.mark.parametrize(("gain", "noise"), [(2.82, True), (2.84, False)])
def test_the_border_of_noise_is_two_pooled_standard_errors(gain, noise):
    text = _two([24.0 + gain, 26.0 + gain], [24.0, 26.0])
    assert ("within seed noise" in text) == noise


def test_five_seeds_pool_their_variances():
    a, b = [30.0, 31, 32, 33, 34], [28.0, 29, 30, 31, 32]
    error = np.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / 2 * (1 / 5 + 1 / 5))
    assert 2 * error == pytest.approx(2.0)  # the difference is 2.0: at the border, not below it
    assert "probably helped" in _two(a, b)
    assert "within seed noise" in _two(a, [v + 0.01 for v in b])


def test_one_seed_allows_no_statement_about_noise():
    assert _two([31.2], [24.9]) == (
        "Detector: densecl 31.2 AP against random 24.9 (one seed): "
        "+6.3 points, one seed: no statement about noise possible."
    )
    assert "(2 and one seed)" in _two([31.2, 31.4], [24.9])


def test_equal_scores_are_noise_and_zero_has_no_minus():
    assert _two([30.0, 30.0], [30.0, 30.0]).endswith("+0.0 points, within seed noise.")
    assert _two([29.0, 30.98], [29.0, 31.0]).endswith("+0.0 points, within seed noise.")


def test_verdict_by_another_metric():
    assert "AP50 against" in _two([31.2, 32.4], [24.0, 25.6], metric="AP50")


def test_verdict_over_fractions_and_inits_starts_with_all_labels():
    text = verdict(_detector())
    assert text.startswith("Detector: densecl 31.8 ± 0.8 AP against random 24.8")
    assert ". With 10 % of the labels, densecl 12.5 ± 0.7 AP against random 4.5 ± 0.7" in text
    assert text.count("against random") == 4


def test_verdict_names_failures_and_missing_partners():
    result = _segmenter()
    for run in result["runs"]:
        if run["init"] == "random":
            run.update(status="failed", error="boom", metrics={})
    assert verdict(result) == (
        "Segmenter: no run from random finished, nothing to compare. 2 of 4 runs failed."
    )
    alone = fake_result("segmentation", ["mIoU"], {("densecl", 1.0): [40.0]})
    assert verdict(alone) == (
        "Segmenter: densecl 40.0 mIoU (one seed), nothing to compare it with."
    )


def test_percent_and_duration():
    assert [percent(f) for f in (1.0, 0.1, 0.005)] == ["100 %", "10 %", "0.5 %"]
    assert [duration(s) for s in (None, 5.4, 200, 3900)] == ["–", "5 s", "3 min 20 s", "1 h 5 min"]


# --- the pages -----------------------------------------------------------------------------------


class _Page(HTMLParser):
    """Collects what a test asks of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, list[dict]]:
    root = tmp_path_factory.mktemp("report")
    results = [_detector(), _segmenter()]
    for name, result in zip("ab", results, strict=True):
        _add_predictions(result, root / name)
    broken = copy.deepcopy(results[0]["runs"][2])
    broken.update(seed=2, status="failed", error="CUDA out of memory\nat step 3", metrics={})
    broken.update(curve=[], loss_curve=[], predictions=[])
    results[0]["runs"].append(broken)
    (root / "b" / results[1]["runs"][0]["predictions"][1]).unlink()
    path = write_report(
        results, root / "out", "DenseCL on scenes", [root / "a", root / "b"], PRETRAINING
    )
    return path, results


def test_html_is_whole_and_self_contained(written):
    path, results = written
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    page = _Page(text)
    assert not page.open
    sources = [a.get("src") or a.get("srcset") for t, a in page.tags if t in ("img", "source")]
    assert sources and all(s.startswith("data:image/") for s in sources)
    assert not re.search(r'(?:href|src|url)\s*[=(]\s*["\']?https?:', text)
    assert not [t for t, _ in page.tags if t in ("script", "link", "iframe")]
    for tag, attributes in page.tags:
        if tag == "img":
            assert attributes["alt"].strip()
    headers = [a for t, a in page.tags if t == "th"]
    assert all(a.get("scope") in ("row", "col") for a in headers)
    # figures: 4 of the detector (with fractions), 3 of the segmenter, 1 of pretraining; samples:
    # 3 images x 4 columns and 3 x 3, less the picture that is gone
    assert sum(t == "source" for t, _ in page.tags) == 8
    assert sum(t == "img" for t, _ in page.tags) == 8 + 12 + 9 - 1
    words = " ".join(" ".join(page.words).split())
    for result in results:
        assert verdict(result) in words
        assert result["data"]["metric_note"] in words
    assert words.index(verdict(results[1])) < words.index("Results in percent")
    for expected in ("62/62 tensors", "CUDA out of memory", "0123abc", "no picture", "0.0432"):
        assert expected in words


def test_markdown_says_the_same_and_its_figures_exist(written):
    path, results = written
    text = (path.parent / "report.md").read_text(encoding="utf-8")
    words = " ".join(text.replace("**", "").split())
    for result in results:
        assert verdict(result) in words
    files = re.findall(r"!\[.*?\]\((.+?)\)", text)
    assert len(files) == 8 + 2
    for file in files:
        with Image.open(path.parent / file) as picture:
            assert min(picture.size) > 100
    row = "| densecl | 100 % | 31.8 ± 0.8 | +7.0 | 41.3 ± 1.1 | 50.9 ± 1.4 | 2 (1 failed) | 240 |"
    assert row in text
    assert "| random | 10 % | 4.5 ± 0.7 | – |" in text
    assert "| densecl | 2 | 100 % | CUDA out of memory at step 3 |" in text


@pytest.mark.slow
def test_runs_of_different_lengths_and_unknown_counts(tmp_path):
    result = _detector()
    for run in result["runs"]:
        run["iterations"] = 88000 if run["label_fraction"] == 1 else 8800
    result["data"]["train_images"] = None
    write_report([result], tmp_path, "t", [tmp_path])
    text = (tmp_path / "report.md").read_text()
    assert "Fine-tuned for 8,800 to 88,000 iterations" in text
    assert "scenes: ? training and 80 validation images" in text


@pytest.mark.slow
def test_pages_and_figures_are_the_same_every_time(tmp_path):
    first, second = (write_report([_segmenter()], tmp_path / n, "t", [tmp_path]) for n in "ab")
    for path in sorted(p for p in first.parent.rglob("*") if p.is_file()):
        assert path.read_bytes() == (second.parent / path.relative_to(first.parent)).read_bytes()


@pytest.mark.slow
def test_text_of_the_user_is_escaped_everywhere(tmp_path):
    name = f"a|b_$x^{{${HOSTILE}"
    result = fake_result(
        "instance", ["box_AP", "mask_AP"], {(name, 1.0): [3.0], ("_r", 1.0): [2.0]}
    )
    result["data"].update(name=HOSTILE, classes=[HOSTILE, "b"], metric_note=HOSTILE)
    result["environment"]["command"] = HOSTILE
    result["runs"][0].update(status="failed", error=HOSTILE, metrics={})
    result["title"] = HOSTILE
    path = write_report([result], tmp_path, HOSTILE, [tmp_path], {"method": HOSTILE})
    assert "<script" not in path.read_text()
    assert HOSTILE in " ".join(_Page(path.read_text()).words)
    markdown = (tmp_path / "report.md").read_text()
    assert "<script" not in markdown
    assert r"a\|b\_$x^" in markdown


def test_report_of_nothing_but_failures_still_appears(tmp_path):
    result = _segmenter()
    for run in result["runs"]:
        run.update(status="failed", error="boom", metrics={}, curve=[], loss_curve=[])
    path = write_report([result], tmp_path, "All failed", [tmp_path])
    words = " ".join(_Page(path.read_text()).words)
    assert "4 of 4 runs failed" in words
    assert not list((tmp_path / "plots").iterdir())


def test_wrong_input_is_refused(tmp_path):
    with pytest.raises(UserError, match="no results"):
        write_report([], tmp_path, "t", [])
    with pytest.raises(UserError, match="densessl-transfer/1"):
        write_report([{"format": "other/2"}], tmp_path, "t", [tmp_path])
