"""tools/benchmark_peers.py, as far as it goes without the peers."""

import importlib.util
import sys

import pytest

from tests.training import REPO, write_images

spec = importlib.util.spec_from_file_location("peers_tool", REPO / "tools/benchmark_peers.py")
peers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(peers)


def test_a_ratio_is_the_median_of_the_rounds_own_ratios():
    spent = dict(worker=[1.0, 2.0, 4.0], mmpretrain=[8.0, 8.0, 20.0])
    assert peers.ratios(spent, ("worker",)) == {"mmpretrain / worker": 5.0}


def test_data_needs_images(capsys):
    with pytest.raises(SystemExit):
        peers.main(["data"])
    assert "data needs --images" in capsys.readouterr().err


def test_a_missing_peer_is_named_with_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "mmpretrain", None)
    assert peers.main(["data", "--images", str(write_images(tmp_path / "images", 4))]) == 2
    message = capsys.readouterr().err
    assert "mmpretrain" in message and "pip install" in message
