"""The report's pages and figures, whole."""

import copy
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densessl.errors import UserError
from densessl.transfer import plots
from densessl.transfer.report import write_report
from densessl.transfer.summary import verdict
from tests.transfer.fake_results import (
    PRETRAINING,
    add_predictions,
    detector_result,
    fake_result,
    segmenter_result,
)

pytestmark = pytest.mark.slow

HOSTILE = '<script>alert("1")</script>'


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
    results = [detector_result(), segmenter_result()]
    for name, result in zip("ab", results, strict=True):
        add_predictions(result, root / name)
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
    # figures: 5 of the detector (two fractions), 3 of the segmenter, 1 of pretraining; samples:
    # 3 images x 4 columns and 3 x 3, less the picture that is gone
    assert sum(t == "source" for t, _ in page.tags) == 9
    assert sum(t == "img" for t, _ in page.tags) == 9 + 12 + 9 - 1
    words = " ".join(" ".join(page.words).split())
    for result in results:
        assert verdict(result) in words
        assert result["data"]["metric_note"] in words
    assert words.index(verdict(results[1])) < words.index("Results in percent")
    assert words.count("score of 0.3 or more") == 1  # the detector's pictures
    for expected in ("62/62 tensors", "CUDA out of memory", "0123abc", "no picture", "0.0432"):
        assert expected in words


def test_markdown_says_the_same_and_its_figures_exist(written):
    path, results = written
    text = (path.parent / "report.md").read_text(encoding="utf-8")
    words = " ".join(text.replace("**", "").split())
    for result in results:
        assert verdict(result) in words
    assert words.count("score of 0.3 or more") == 1
    files = re.findall(r"!\[.*?\]\((.+?)\)", text)
    assert len(files) == 9 + 2
    for file in files:
        with Image.open(path.parent / file) as picture:
            assert min(picture.size) > 100
    row = "| densecl | 100 % | 31.8 ± 0.8 | +7.0 | 41.3 ± 1.1 | 50.9 ± 1.4 | 2 (1 failed) | 240 |"
    assert row in text
    assert "| densecl | 10 % | 12.5 ± 0.7 | +8.0 |" in text
    assert "| random | 10 % | 4.5 ± 0.7 | – |" in text
    assert "| densecl | 2 | 100 % | CUDA out of memory at step 3 |" in text


def test_a_curve_is_the_mean_of_the_largest_share_within_its_sample_deviation():
    result = detector_result()
    figure = plots.metric_over_iterations(result, plots.styles([result]), plots.LIGHT)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    end = 1 - np.exp(-4)  # where the curves of these results end
    assert lines["densecl"].get_ydata()[-1] == pytest.approx(end * 31.8)
    x, y = figure.axes[0].collections[0].get_paths()[0].vertices.T
    spread = np.std([31.2, 32.4], ddof=1)
    assert [y[x == 600].min(), y[x == 600].max()] == pytest.approx(
        [end * (31.8 - spread), end * (31.8 + spread)]
    )


def test_a_bar_of_the_final_scores_is_one_sample_deviation_to_each_side():
    result = detector_result()
    figure = plots.final_scores(result, plots.styles([result]), plots.LIGHT, 1.0)
    bar, mean, seeds = figure.axes[0].lines[:3]
    spread = np.std([31.2, 32.4], ddof=1)
    assert [*bar.get_xdata()] == pytest.approx([31.8 - spread, 31.8 + spread])
    assert [*mean.get_xdata()] == pytest.approx([31.8]) and [*seeds.get_xdata()] == [31.2, 32.4]


@pytest.mark.slow
def test_runs_of_different_lengths_and_unknown_counts(tmp_path):
    result = detector_result()
    for run in result["runs"]:
        run["iterations"] = 88000 if run["label_fraction"] == 1 else 8800
    result["data"]["train_images"] = None
    write_report([result], tmp_path, "t", [tmp_path])
    text = (tmp_path / "report.md").read_text()
    assert "Fine-tuned for 8,800 to 88,000 iterations" in text
    assert "scenes: ? training and 80 validation images" in text


@pytest.mark.slow
def test_pages_and_figures_are_the_same_every_time(tmp_path):
    first, second = (
        write_report([segmenter_result()], tmp_path / n, "t", [tmp_path]) for n in "ab"
    )
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
    result = segmenter_result()
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
