"""tools/benchmark_peers.py, as far as it goes without the peers."""

import importlib.util

import pytest

from tests.training import REPO

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
