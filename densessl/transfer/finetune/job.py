"""One fine-tuning job, a process of its own: ``python -m densessl.transfer.finetune.job FILE``."""

import json
import math
import os
import re
import sys
import time
import traceback
from pathlib import Path
from zipfile import is_zipfile

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner, set_random_seed

import densessl.transfer.mm  # noqa: F401  (makes mmseg:: configs findable)
from densessl.checkpoint import install_safe_loader, save_atomically
from densessl.engine.loop import end_workers
from densessl.environment import environment
from densessl.files import write_json
from densessl.transfer.finetune.inits import load_into, set_init_cfg, tensors_of
from densessl.transfer.finetune.predictions import draw_samples

CURVES = "densessl_curves"


class RecordHook(Hook):
    """Records losses and metrics and tells the parent process where the job is.

    Args:
        folder: Of the job; ``progress.json`` appears in it.
        parent: Process id of the harness; the job ends itself when that is gone.
    """

    priority = "VERY_HIGH"  # before PreciseBN, whose time counts as evaluation

    def __init__(self, folder: Path, parent: int):
        self.path, self.parent = folder / "progress.json", parent
        self.last = self.before = 0.0

    def before_train(self, runner: Runner) -> None:
        """Curves live in the message hub, which mmengine's checkpoints keep."""
        if CURVES not in runner.message_hub.runtime_info:
            runner.message_hub.update_info(CURVES, dict(loss=[], metrics=[]))
        self.curves = runner.message_hub.get_info(CURVES)
        self.every = max(1, runner.max_iters // 100)
        self.started, self.first = time.time(), runner.iter
        self.before = self.curves.setdefault("seconds", 0.0)  # what it was stopped after
        self.evaluating = []  # seconds of each evaluation, PreciseBN included

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """A point of the loss curve now and then, and a sign of life."""
        step = runner.iter + 1
        record = step % self.every == 0 or step == 1
        if not record and time.time() - self.last < 1:
            return
        loss = outputs["loss"].item()
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss became {loss} at iteration {step}; lower the learning rate "
                "(--cfg-options optim_wrapper.optimizer.lr=...)"
            )
        if record:
            self.curves["loss"].append(dict(iter=step, loss=loss))
        self._tell(runner, step, loss)

    def before_val(self, runner: Runner) -> None:
        """Evaluation can take long: say so."""
        self.val_started = time.time()
        self._tell(runner, runner.iter, evaluated=0.0)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """A sign of life."""
        if time.time() - self.last > 1:
            share = (batch_idx + 1) / len(runner.val_dataloader)
            self._tell(runner, runner.iter, evaluated=share)

    def after_val(self, runner: Runner) -> None:
        """Evaluation counts apart from the iterations."""
        self.evaluating.append(time.time() - self.val_started)

    def after_val_epoch(self, runner, metrics=None) -> None:
        """A point of the learning curve."""
        values = {key.rpartition("/")[2]: float(value) for key, value in metrics.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"the metric {name} is {value}")
        self.curves["metrics"].append(dict(iter=runner.iter, **values))

    def _tell(
        self,
        runner: Runner,
        step: int,
        loss: float | None = None,
        evaluated: float | None = None,
    ) -> None:
        """Tells the harness; ``evaluated`` is the share of an evaluation that is done."""
        self.last = time.time()
        self.curves["seconds"] = self.before + self.last - self.started
        if os.getppid() != self.parent:
            raise SystemExit("the harness is gone")
        trained = self.last - self.started - sum(self.evaluating)
        phase, passes, rest = "training", self.evaluating, 0.0
        if evaluated is not None:
            this = self.last - self.val_started
            trained -= this
            phase, rest = f"evaluating ({100 * evaluated:.0f} %)", 1 - evaluated
            if evaluated and not passes:  # its first images take longer, so only for want of others
                passes = [this / evaluated]
        speed = trained / max(1, step - self.first)
        each = sum(passes) / max(1, len(passes))
        interval = runner.train_loop.val_interval
        if isinstance(runner.train_loop, EpochBasedTrainLoop):  # it counts epochs
            interval *= len(runner.train_dataloader)
        to_evaluate = (runner.max_iters - step) / max(1, interval)
        left = speed * (runner.max_iters - step) + each * (to_evaluate + rest)
        latest = self.curves["metrics"][-1] if self.curves["metrics"] else None
        write_json(
            dict(
                iter=step,
                total=runner.max_iters,
                loss=loss,
                seconds_per_iter=speed,
                seconds_left=left,
                phase=phase,
                latest=latest,
            ),
            self.path,
        )


def run(job: dict) -> dict:
    """Fine-tunes, evaluates and draws.

    Args:
        job: ``config`` (file), ``init_file`` (or None), ``seed``, ``folder``, ``parent``,
            ``metrics`` (names), ``predictions`` and ``ground_truth`` (folders, or None).

    Returns:
        What goes into the results of this run.
    """
    install_safe_loader()
    start = time.time()
    made = {key: value for key, value in environment().items() if key != "command"}  # not a user's
    folder = Path(job["folder"])
    cfg = Config.fromfile(job["config"])
    set_init_cfg(cfg.model, None)
    # Configs of long schedules write checkpoints: a job that was stopped goes on from its last one.
    latest = _latest_checkpoint(folder)
    cfg.resume, cfg.load_from = latest is not None, latest
    runner = Runner.from_cfg(cfg)
    # The same random weights for every initialisation of this seed; then the backbone over them.
    set_random_seed(job["seed"])
    runner.model.init_weights()
    loaded = None
    if job["init_file"] is not None:
        state = tensors_of(job["init_file"])
        loaded = load_into(runner.model, state).summary()
    set_random_seed(job["seed"])
    record = RecordHook(folder, job["parent"])
    runner.register_hook(record)
    runner.train()
    points = record.curves["metrics"]
    if not points or points[-1]["iter"] < runner.max_iters:
        runner.val_loop.run()  # it was stopped after its last checkpoint, while it was evaluated
    for loader in (runner.train_dataloader, runner.val_dataloader):
        end_workers(loader)
    drawn = {}
    if job["predictions"]:
        try:
            drawn = draw_samples(
                runner.model,
                runner.val_dataloader.dataset,
                Path(job["predictions"]),
                Path(job["ground_truth"]),
            )
        except Exception:  # a picture is not worth a training
            traceback.print_exc()
        weights = dict(
            state_dict=runner.model.state_dict(), meta=dict(dataset_meta=_classes(runner))
        )
        save_atomically(weights, folder / "model.pth")
    for leftover in (*folder.glob("*_[0-9]*.pth"), folder / "last_checkpoint"):
        leftover.unlink(missing_ok=True)
    final = points[-1]
    # So that the comparison's folder can be moved.
    root = folder.parents[1]
    drawn = {kind: [os.path.relpath(p, root) for p in paths] for kind, paths in drawn.items()}
    return dict(
        status="done",
        error=None,
        seconds=record.before + time.time() - start,
        train_images=len(runner.train_dataloader.dataset),
        val_images=len(runner.val_dataloader.dataset),
        iterations=runner.max_iters,
        classes=_classes(runner)["classes"],
        loaded=loaded,
        metrics={name: final[name] for name in job["metrics"]},
        curve=points,
        loss_curve=record.curves["loss"],
        environment=made,
        **drawn,
    )


def _latest_checkpoint(folder: Path) -> str | None:
    """The newest whole one: a job may have ended while it wrote its last."""
    names = (
        (re.fullmatch(r"(?:epoch|iter)_(\d+)\.pth", file.name), file) for file in folder.iterdir()
    )
    found = {int(name[1]): file for name, file in names if name}
    whole = (str(found[step]) for step in sorted(found, reverse=True) if is_zipfile(found[step]))
    return next(whole, None)


def _classes(runner: Runner) -> dict:
    return dict(classes=list(runner.val_dataloader.dataset.metainfo["classes"]))


def explain(error: BaseException) -> str:
    """The error in one line, with the knob to turn where there is one."""
    text = [line for line in str(error).splitlines() if line.strip()]
    line = f"{type(error).__name__}: {text[0] if text else 'no message'}"
    if text and text[0].startswith("Caught ") and "DataLoader worker" in text[0]:
        line = text[-1]  # the worker's traceback, which ends with its error
    out_of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
    if out_of_memory or "can't allocate memory" in str(error):
        line += " (lower --cfg-options train_dataloader.batch_size=N; the learning rate follows)"
    return line


def main(argv: list[str]) -> int:
    """Runs the job and leaves ``result.json`` in its folder, whatever happened."""
    job = json.loads(Path(argv[0]).read_text())
    try:
        result = run(job)
    except Exception as error:
        traceback.print_exc()
        result = dict(status="failed", error=explain(error))
    write_json(result, Path(job["folder"]) / "result.json")
    return 0 if result["status"] == "done" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
