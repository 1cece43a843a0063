"""The figures of docs/methods.md are those of its JSON files."""

import json
import re
from pathlib import Path

import pytest

from densessl.evaluation import table

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "methods.md").read_text()
RESULTS = ROOT / "docs" / "results"
# What a link says: the folder, and what follows a method's name in the names of its files.
RUNS = {
    "200 steps": ("frozen_200_steps", "_[0-9].json"),
    "30 epochs": ("frozen_30_epochs", "_[0-9]_voc.json"),
}
FIGURE = r"(\d+\.\d(?: ± \d+\.\d)?)"
FIGURES = re.compile(
    rf"\[([^]]+)\]\(#measured\): boxes {FIGURE}, mIoU {FIGURE}; random weights {FIGURE}, {FIGURE}\."
)


def rows(*files):
    """Of the table of ``files``: name, boxes, mIoU."""
    made = table([json.loads(file.read_text()) for file in files]).splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")][:3] for row in made]


def files_of(name, run):
    folder, end = RUNS[run]
    return sorted((RESULTS / folder).glob(name + end))


@pytest.mark.parametrize(
    "entry", re.split(r"\n### ", PAGE)[1:], ids=lambda entry: entry.split("\n")[0]
)
def test_an_entry_says_what_was_measured(entry):
    (line,) = re.findall(r"^- (Measured: .+(?:\n  .+)*)", entry, re.MULTILINE)
    line = " ".join(line.split())
    config = re.match(r"Measured: `([^`]+)`", line)[1]
    assert list((ROOT / "configs").glob(f"*/{config}"))
    name, said = config.partition("_r18")[0], FIGURES.findall(line)
    assert [run for run, *_ in said] == [run for run in RUNS if files_of(name, run)]
    for run, *figures in said:
        own, random = (rows(*files_of(each, run))[0] for each in (name, "random"))
        assert figures == [*own[1:], *random[1:]], run


def test_the_table_has_every_run():
    shown = PAGE.split("<!-- table -->\n")[1].split("<!-- /table -->")[0].splitlines()[2:]
    expected = rows(*sorted((RESULTS / "frozen_200_steps").glob("*.json")))
    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in shown] == expected
