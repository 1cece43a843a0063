"""The main job in small, through the tool, at a size that shows nothing but that it runs."""

import json

import pytest

from densessl.demo import run
from tools import demo


@pytest.mark.slow
def test_the_demo_goes_from_nothing_to_the_report(tmp_path, monkeypatch, capfd):
    scenes = dict(unlabelled=8, train=12, val=4, size=64)
    tiny = run.Plan(32, 4, 3, 2, 2, scenes=scenes, seeds=(0,))
    monkeypatch.setattr(run, "SCENES", tiny)
    out = tmp_path / "out"
    assert demo.main(["--out", str(out)]) == 0
    said = capfd.readouterr().out
    assert f"Report: {out / 'report.html'}" in said and "Everything matched" in said
    assert "3 steps on 12 images" in said
    page = (out / "report.html").read_text()
    assert "densecl" in page and "random" in page and "DenseCL" in page
    for name in ("detector", "segmenter"):
        results = json.loads((out / name / "results.json").read_text())
        assert [r["status"] for r in results["runs"]] == ["done", "done"]
        assert all(
            (out / name / path).is_file() for r in results["runs"] for path in r["predictions"]
        )
    # A second call finds everything done; another plan does not overwrite it.
    assert demo.main(["--out", str(out)]) == 0
    assert "done before" in capfd.readouterr().out
    monkeypatch.setattr(run, "SCENES", run.Plan(32, 4, 4, 2, 2, scenes=scenes, seeds=(0,)))
    assert demo.main(["--out", str(out)]) == 2
    assert "already holds something else" in capfd.readouterr().err


def test_a_folder_of_another_layout_is_refused(tmp_path, capsys):
    assert demo.main(["--out", str(tmp_path / "out"), "--data", str(tmp_path)]) == 2
    assert "not a VOC-layout folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
