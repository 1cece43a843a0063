"""Running the jobs as processes, with progress for the user."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from densessl.environment import cores
from densessl.files import write_json
from densessl.transfer.finetune.plan import Run
from densessl.transfer.summary import duration

SPEAK_EVERY = 5.0  # seconds between two progress lines
GRACE = 10.0  # seconds for a job to end after SIGTERM


@dataclass
class Process:
    """A job that runs."""

    run: Run
    number: int
    folder: Path
    slot: int
    popen: subprocess.Popen
    spoke: float = 0.0
    told: dict | None = None  # the progress that was last printed


def run_all(
    runs: list[Run],
    start: Callable[[Run], Path],
    jobs: int,
    after_each: Callable[[], None],
) -> None:
    """Runs every job that has no result yet.

    Args:
        runs: All jobs, finished ones too.
        start: Writes a job's folder and returns it; ``job.json`` is in it.
        jobs: How many run at the same time.
        after_each: Called whenever a job has ended.

    Raises:
        SystemExit: SIGINT (130) or SIGTERM (143) came; the running jobs have been stopped.
    """
    waiting = [(number, run) for number, run in enumerate(runs, 1)]
    running: list[Process] = []
    ended: list[float] = []  # seconds of each finished job, for the estimate
    total = len(runs)
    with _signals() as received:
        try:
            while (waiting or running) and not received:
                while waiting and len(running) < jobs:
                    number, run = waiting.pop(0)
                    folder = start(run)
                    if is_done(folder):
                        print(f"[{number}/{total}] {run.title}: done before", flush=True)
                        continue
                    print(
                        f"[{number}/{total}] {run.title}: log in {folder / 'log.txt'}", flush=True
                    )
                    slot = min(set(range(jobs)) - {process.slot for process in running})
                    popen = _spawn(folder, slot, jobs)
                    running.append(Process(run, number, folder, slot, popen))
                time.sleep(0.2)
                for process in list(running):
                    if process.popen.poll() is None:
                        _speak(process, total, ended, len(waiting) / jobs)
                        continue
                    running.remove(process)
                    _finish(process, total, ended)
                    after_each()
        finally:
            _stop(running)
        if received:
            print("Stopped. Finished jobs are kept; the same command goes on.", flush=True)
            raise SystemExit(128 + received[0])


def rest(ended: list[float], here: float, turns: float, this: float) -> float:
    """Seconds until everything is done: ``here`` of a running job, and then ``turns`` jobs more,
    each like those that have ``ended``, or for want of them as long as ``this``."""
    return here + turns * (sum(ended) / len(ended) if ended else this)


def is_done(folder: Path) -> bool:
    """Whether a job ended well."""
    return (read_json(folder / "result.json") or {}).get("status") == "done"


def read_json(path: Path) -> dict | None:
    """The file's content, or None if it is not there."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _spawn(folder: Path, slot: int, jobs: int) -> subprocess.Popen:
    for old in ("result.json", "progress.json"):
        (folder / old).unlink(missing_ok=True)
    environment = dict(os.environ)
    # A child of a program that runs from a source tree must find densessl there too.
    root = str(Path(__file__).resolve().parents[3])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    if jobs > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // jobs)))
    if jobs > 1 and torch.cuda.device_count() > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = (
            visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
        )
        environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "densessl.transfer.finetune.job", str(folder / "job.json")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            close_fds=False,  # it holds the lock on the comparison's folder with us
            start_new_session=True,  # a terminal's Ctrl-C reaches only us; we stop the job's group
        )


def _speak(process: Process, total: int, ended: list[float], turns: float) -> None:
    if time.time() - process.spoke < SPEAK_EVERY:
        return
    progress = read_json(process.folder / "progress.json")
    if progress is None or progress == process.told:
        return
    process.spoke, process.told = time.time(), progress
    speed, here = progress["seconds_per_iter"], progress["seconds_left"]
    left = rest(ended, here, turns, progress["total"] * speed)
    loss = "" if progress["loss"] is None else f", loss {progress['loss']:.3f}"
    latest = progress["latest"]
    metric = ""
    if latest:
        name = next(key for key in latest if key != "iter")
        metric = f", {name} {latest[name]:.1f} at {latest['iter']}"
    print(
        f"[{process.number}/{total}] {process.run.title}: {progress['phase']} "
        f"{progress['iter']}/{progress['total']}{loss}{metric}, {speed:.2f} s/it, "
        f"left: this job {duration(here)}, all {duration(left)}",
        flush=True,
    )


def _finish(process: Process, total: int, ended: list[float]) -> None:
    result = read_json(process.folder / "result.json")
    if result is None:
        code = process.popen.returncode
        reason = f"ended with code {code} before it could say why"
        if code == -signal.SIGKILL:
            reason = "was killed, most likely for memory: lower train_dataloader.batch_size"
        result = dict(status="failed", error=f"The job {reason}")
        write_json(result, process.folder / "result.json")
    if result["status"] == "done":
        ended.append(result["seconds"])
        values = ", ".join(f"{name} {value:.2f}" for name, value in result["metrics"].items())
        text = f"done in {duration(result['seconds'])}: {values}"
    else:
        text = f"FAILED: {result['error']}; see {process.folder / 'log.txt'}"
    print(f"[{process.number}/{total}] {process.run.title}: {text}", flush=True)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them; only possible in the main thread."""
    received: list[int] = []
    try:
        old = {
            number: signal.signal(number, lambda n, _: received.append(n))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
    except ValueError:
        old = {}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _stop(running: list[Process]) -> None:
    for process in running:
        _signal_group(process, signal.SIGTERM)
    deadline = time.time() + GRACE
    for process in running:
        try:
            process.popen.wait(max(0.1, deadline - time.time()))
        except subprocess.TimeoutExpired:
            pass
        # Data workers may outlive the job itself.
        _signal_group(process, signal.SIGKILL)
        process.popen.wait()


def _signal_group(process: Process, number: int) -> None:
    try:
        os.killpg(process.popen.pid, number)
    except ProcessLookupError:
        pass
