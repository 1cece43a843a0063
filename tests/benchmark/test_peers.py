"""tools/benchmark_peers.py, as far as it goes without the peers."""

import importlib.util
import os
import sys

import pytest

from densessl.benchmark import peers
from densessl.benchmark.measure import in_turn
from tests.training import REPO, write_images

spec = importlib.util.spec_from_file_location("peers_tool", REPO / "tools/benchmark_peers.py")
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


def test_a_ratio_is_the_median_of_the_rounds_own_ratios():
    spent = {"worker": [1.0, 2.0, 4.0], "whole input": [2.0] * 3, "mmpretrain": [8.0, 8.0, 20.0]}
    expected = {"mmpretrain / worker": 5.0, "mmpretrain / whole input": 4.0}
    assert peers._ratios(spent) == expected


def test_data_needs_images(capsys):
    with pytest.raises(SystemExit):
        tool.main(["data"])
    assert "--images" in capsys.readouterr().err


def test_a_missing_peer_is_named_with_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "mmpretrain", None)
    folder = str(write_images(tmp_path / "images", 4))
    for command in (["data", "--images", folder], ["step"]):
        assert tool.main(command) == 2
        message = capsys.readouterr().err
        assert "mmpretrain" in message and "pip install" in message


@pytest.mark.slow
def test_each_contestant_works_in_its_own_process(tmp_path):
    folder = str(write_images(tmp_path / "images", 4))
    names = ("worker", "whole input")
    seen = in_turn(peers._cpu_seconds, names, 2, folder)
    assert {name: len(values) for name, values in seen.items()} == dict.fromkeys(names, 2)
    assert all(value > 0 for values in seen.values() for value in values)


@pytest.mark.slow
def test_in_turn_gives_each_name_a_process_and_leaves_the_first_round_out():
    seen = in_turn(count_calls, ("one", "two"), 2, "argument")
    one, two = seen["one"][0][0], seen["two"][0][0]
    assert seen["one"] == [(one, "one", "argument", 2), (one, "one", "argument", 3)]
    assert seen["two"] == [(two, "two", "argument", 2), (two, "two", "argument", 3)]
    assert one != two and os.getpid() not in (one, two)


calls = []


def count_calls(name: str, argument: str) -> tuple[int, str, str, int]:
    calls.append(name)
    return os.getpid(), name, argument, len(calls)
