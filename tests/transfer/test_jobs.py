"""Fine-tuning jobs: going on, progress, the time that is left, what went wrong."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import EpochBasedTrainLoop, get_priority

from densessl.transfer.finetune.job import RecordHook, _latest_checkpoint, explain
from densessl.transfer.finetune.plan import runs_of
from densessl.transfer.finetune.processes import rest
from densessl.transfer.mm.precise_bn import PreciseBNHook


def test_a_job_goes_on_from_its_newest_whole_checkpoint(tmp_path):
    assert _latest_checkpoint(tmp_path) is None
    for step in (9, 10):
        torch.save(dict(step=step), tmp_path / f"iter_{step}.pth")
    assert _latest_checkpoint(tmp_path) == str(tmp_path / "iter_10.pth")
    (tmp_path / "best_mIoU_iter_99.pth").write_bytes((tmp_path / "iter_10.pth").read_bytes())
    whole = (tmp_path / "iter_10.pth").read_bytes()
    (tmp_path / "iter_11.pth").write_bytes(whole[:-100])  # it was being written
    assert _latest_checkpoint(tmp_path) == str(tmp_path / "iter_10.pth")


def test_progress_is_said_and_a_dead_job_is_recorded(tmp_path, monkeypatch, capsys):
    """A job that dies without a word is a failed run, and the next one goes on."""
    import sys

    from densessl.transfer.finetune import processes

    script = (
        "import json, os, signal, sys, time; folder = sys.argv[1]\n"
        "if 'bad' in folder: os.kill(os.getpid(), signal.SIGKILL)\n"
        "json.dump(dict(iter=3, total=9, loss=.5, seconds_per_iter=1.0, seconds_left=6.0,"
        " phase='training', latest=None), open(folder + '/progress.json', 'w'))\n"
        "time.sleep(1)\n"
        "json.dump(dict(status='done', error=None, seconds=1.0, metrics=dict(AP=12.5)),"
        " open(folder + '/result.json', 'w'))\n"
    )
    spawn = processes.subprocess.Popen

    def fake(command, **options):
        folder = str(Path(command[-1]).parent)
        return spawn([sys.executable, "-c", script, folder], **options)

    monkeypatch.setattr(processes.subprocess, "Popen", fake)
    monkeypatch.setattr(processes, "SPEAK_EVERY", 0.1)

    def start(run):
        folder = tmp_path / run.name
        folder.mkdir(exist_ok=True)
        return folder

    runs = list(runs_of(["bad", "good"], [0], [1.0]))
    after = []
    processes.run_all(runs, start, 1, lambda: after.append(time.time()))
    assert len(after) == 2
    results = [json.loads((tmp_path / r.name / "result.json").read_text()) for r in runs]
    assert [r["status"] for r in results] == ["failed", "done"]
    assert "memory" in results[0]["error"]
    said = capsys.readouterr().out
    assert f"see {tmp_path / runs[0].name / 'log.txt'}" in said
    # Once, although there was time for several lines: there was nothing new.
    assert said.count("[2/2] good, 100 % of the labels, seed 0: training 3/9, loss 0.500") == 1
    assert "AP 12.50" in said
    processes.run_all(runs[1:], start, 1, lambda: after.append(0))
    assert len(after) == 2 and "done before" in capsys.readouterr().out


def test_jobs_side_by_side_share_the_time_that_is_left():
    assert rest([], 5.0, 4 / 2, this=8.0) == 5 + 2 * 8  # none has ended: as long as this one
    assert rest([10.0, 20.0], 5.0, 4 / 2, this=8.0) == 5 + 2 * 15


def test_an_error_of_a_data_worker_is_its_last_line():
    text = "Caught AssertionError in DataLoader worker process 0.\nOriginal Traceback:\n  a\n"
    error = AssertionError(text + "AssertionError: mask is too small\n")
    assert explain(error) == "AssertionError: mask is too small"
    assert explain(ValueError("first\nsecond")) == "ValueError: first"


def test_the_estimate_counts_evaluations_by_epoch(tmp_path):
    """Ten epochs of 20 steps, evaluated after each: half way, five evaluations are to come."""
    loop = object.__new__(EpochBasedTrainLoop)
    loop.val_interval = 1
    runner = SimpleNamespace(max_iters=200, train_loop=loop, train_dataloader=range(20))
    hook = RecordHook(tmp_path, os.getppid())
    hook.started, hook.first, hook.evaluating = time.time() - 50, 0, [10.0] * 5
    hook.curves = dict(metrics=[])
    hook._tell(runner, 100, 1.0)
    left = json.loads((tmp_path / "progress.json").read_text())["seconds_left"]
    assert left == pytest.approx(50, abs=1)
    hook.evaluating, hook.val_started = [], time.time() - 5
    hook._tell(runner, 200, evaluated=0.25)  # the last one, and the first that is measured
    told = json.loads((tmp_path / "progress.json").read_text())
    assert told["seconds_left"] == pytest.approx(15, abs=1)
    assert told["phase"] == "evaluating (25 %)"
    hook.evaluating, hook.started = [10.0], time.time() - 65
    hook._tell(runner, 200, evaluated=0.25)  # one that was measured whole counts alone
    told = json.loads((tmp_path / "progress.json").read_text())
    assert told["seconds_left"] == pytest.approx(7.5, abs=0.1)


def test_the_clock_of_an_evaluation_starts_before_precise_bn():
    assert get_priority(RecordHook.priority) < get_priority(PreciseBNHook.priority)
