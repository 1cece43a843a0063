"""Hooks: what happens at an optimizer step, what the log shows, how a run ends early."""

import os
import signal
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

import torch
from mmengine import hooks
from mmengine.dist import all_gather_object, all_reduce, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from densessl.datasets.images import above_share, too_many_broken
from densessl.errors import UserError
from densessl.registry import HOOKS
from densessl.structures import PackedBatch

# From the keyboard, a scheduler, a terminal that is closed, and as a notice of the end.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# Those of every training, whatever its config says.
OUR_HOOKS = dict(
    optimizer_step=dict(type="OptimizerStepHook"),
    throughput=dict(type="ThroughputHook"),
    finite_loss=dict(type="FiniteLossHook"),
    collapse=dict(type="CollapseHook"),
    broken_images=dict(type="BrokenImagesHook"),
    stop=dict(type="StopHook"),
)
COLLAPSED = 0.1
"""The ``embedding_std`` or ``dense_std`` (``densessl.models.health``) under which one is warned."""
ALIKE = {
    "embedding_std": "the embeddings of all images are nearly the same. If it stays so, nothing is "
    "learned: lower optim_wrapper.optimizer.lr",
    "dense_std": "the embeddings of cells follow from their place in the view alone. If it stays "
    "so, the dense loss teaches nothing: set model.dense_negatives=cells (MoCo, DenseCL), or "
    "try model.dense.match.type=LocationMatch (other methods)",
}


class Stopped(Exception):
    """Training ended early on a signal, after writing a checkpoint.

    Args:
        signum: The signal.
        checkpoint: Path of what was written.
    """

    def __init__(self, signum: int, checkpoint: str):
        super().__init__(signum, checkpoint)
        self.signum, self.checkpoint = signum, checkpoint


def method_of(runner: Runner):
    """The method being trained, out of its wrapper."""
    return getattr(runner.model, "module", runner.model)


def follow_steps(method, optimizer: torch.optim.Optimizer, total_steps: int = 0):
    """Tells ``method`` of every step of ``optimizer``; the handle returned ends that.

    Args:
        method: Counts on from its ``step``.
        optimizer: Any.
        total_steps: How many there will be, for what moves with the share done, such as BYOL's
            momentum; 0 if that is unknown.
    """
    method.total_steps = total_steps

    def stepped(*_) -> None:
        method.step += 1
        method.after_optimizer_step()

    return optimizer.register_step_post_hook(stepped)


@HOOKS.register_module()
class OptimizerStepHook(Hook):
    """Tells the method of every optimizer step, exactly when it happens."""

    def before_train(self, runner: Runner) -> None:
        method = method_of(runner)
        method.step = runner.iter
        optimizer = runner.optim_wrapper.optimizer
        self._handle = follow_steps(method, optimizer, runner.train_loop.total_steps)

    def after_train(self, runner: Runner) -> None:
        self._handle.remove()


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Adds images a second (over all ranks) and the share of time spent waiting for data."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        hub = runner.message_hub
        seconds = hub.get_scalar("train/time").current()
        totals = {
            "train/images_per_s": len(data_batch.index) * get_world_size(),
            "train/data_wait": hub.get_scalar("train/data_time").current(),
        }
        for name, total in totals.items():
            # With seconds as counts the log's mean over a window is total over total.
            hub.update_scalar(name, total, seconds)


@HOOKS.register_module()
class CheckpointHook(hooks.CheckpointHook):
    """mmengine's, but the oldest checkpoint goes when the new one is there, not before."""

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        most = self.max_keep_ckpts
        if most <= 0:
            return super()._save_checkpoint_with_step(runner, step, meta)
        self.keep_ckpt_ids = deque(self.keep_ckpt_ids)  # mmengine's drops ids that do not fit
        self.max_keep_ckpts = most + 1
        try:
            super()._save_checkpoint_with_step(runner, step, meta)
        finally:
            self.max_keep_ckpts = most
        while len(self.keep_ckpt_ids) > most:
            old = Path(self.out_dir, self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))
            if is_main_process():
                old.unlink(missing_ok=True)


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops a training whose loss is no longer a number, instead of wasting the night.

    Before every checkpoint the weights are looked at too, so that the last one is always from
    before: a loss judges the weights before its own step.

    Args:
        interval: Optimizer steps between checks; each one waits for the device.
    """

    priority = "ABOVE_NORMAL"  # before mmengine's timer: its wait is the step's, not the data's

    def __init__(self, interval: int = 10):
        self.interval = interval
        self.loss = torch.zeros(())

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.loss = outputs["loss"]
        if self.every_n_train_iters(runner, self.interval):
            self.check(f"at step {runner.iter + 1}")

    def before_save_checkpoint(self, runner, checkpoint: dict | None = None) -> None:
        self.check("before the checkpoint, which was not written")
        state = method_of(runner).state_dict().values()
        norms = torch._foreach_norm([value for value in state if value.is_floating_point()])
        if not torch.stack([norm.float() for norm in norms]).isfinite().all():
            raise diverged("The weights hold NaN or infinity, so no checkpoint was written")

    def check(self, when: str) -> None:
        """Raises ``UserError`` unless the last loss is finite."""
        if not self.loss.isfinite():
            raise diverged(f"The loss is {self.loss.item()} {when}")


def diverged(what: str) -> UserError:
    """The error of a training that cannot go on from where it is."""
    return UserError(
        f"{what}.",
        "start again with a lower learning rate (--cfg-options optim_wrapper.optimizer.lr=...), or "
        "go on from the last checkpoint, which is from before, with --resume --precision fp32",
    )


@HOOKS.register_module()
class CollapseHook(Hook):
    """Warns after an epoch at whose end all images, or their cells, were embedded alike; training
    goes on."""

    def after_train_epoch(self, runner: Runner) -> None:
        for name, words in ALIKE.items():
            spread = runner.message_hub.log_scalars.get(f"train/{name}")
            if spread is not None and spread.mean(10) < COLLAPSED:
                runner.logger.warning(f"{name} is {spread.mean(10):.3f}: {words}")


@HOOKS.register_module()
class StopHook(Hook):
    """Ctrl-C, SIGTERM and what else stops jobs: a checkpoint at the next optimizer step, then
    ``Stopped``.

    A second Ctrl-C ends the process at once, unless the checkpoint is being written. A second
    SIGTERM does not: schedulers and torchrun may both send one. Handlers that were set outside of
    Python, as by ``faulthandler.register``, are not given back afterwards.
    """

    priority = "LOWEST"

    def __init__(self):
        self._signum: int | None = None
        self._saving = False
        self._group = None
        self._previous: dict[int, object] = {}

    def before_train(self, runner: Runner) -> None:
        if get_world_size() > 1:  # the hosts agree among themselves: no device has to wait
            self._group = torch.distributed.new_group(backend="gloo")
        # Python allows handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for signum in STOPPING:
                if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:  # nohup
                    self._previous[signum] = signal.signal(signum, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self._saving:  # mmengine swallows what is raised in there
            os.write(2, b"\nThe checkpoint is being written.\n")
            return
        if self._signum and signum == signal.SIGINT:
            raise KeyboardInterrupt
        if not self._signum and is_main_process():
            # The signal may have come in the middle of a print: no buffered stream here.
            os.write(2, b"\nStopping after this step, with a checkpoint. Ctrl-C: at once.\n")
        self._signum = signum

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        # Ranks may get the signal in different steps; they must stop in the same one.
        signum = self._agreed()
        if signum:
            self._saving = True
            checkpoint = runner.save_now(runner.iter + 1, stopped=True)
            raise Stopped(signum, checkpoint)

    def _agreed(self) -> int:
        if get_world_size() == 1:
            return self._signum or 0
        signum = torch.tensor(self._signum or 0)
        all_reduce(signum, "max", self._group)
        return int(signum)

    def however_it_ended(self, runner: Runner) -> None:
        """Called by ``PretrainRunner.train``: gives the signals back."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()


@HOOKS.register_module()
class BrokenImagesHook(Hook):
    """Counts unreadable images while training, names the first ones, stops when too many.

    Those that only other processes met are named after the epoch: the log is rank 0's.

    Args:
        enough: Images to have seen before a share is judged.
    """

    def __init__(self, enough: int = 200):
        self.enough = enough
        self.broken: dict[int, None] = {}  # a set in the order of discovery
        self.named: set[int] = set()
        self.seen = 0

    def after_train_iter(
        self, runner, batch_idx, data_batch: PackedBatch | None = None, outputs=None
    ) -> None:
        dataset = runner.train_dataloader.dataset
        self.seen = min(self.seen + len(data_batch.index), len(dataset))
        met = data_batch.broken[data_batch.broken >= 0].tolist()
        self.broken.update(dict.fromkeys(met))
        self._name(runner, met)
        counts = (len(self.broken), self.seen, len(dataset))
        if self.seen >= min(self.enough, len(dataset)) and above_share(dataset.max_broken, *counts):
            paths = [dataset.path(index) for index in self.broken]
            raise too_many_broken(paths, self.seen, dataset.max_broken)

    def after_train_epoch(self, runner) -> None:
        everyone = all_gather_object(list(self.broken))
        broken = dict.fromkeys(index for part in everyone for index in part)
        self._name(runner, broken)
        if broken:
            runner.logger.warning(f"of the images seen so far {len(broken)} cannot be read")

    def _name(self, runner: Runner, indices: Iterable[int]) -> None:
        dataset = runner.train_dataloader.dataset
        for index in indices:
            if index not in self.named and len(self.named) < 5:
                self.named.add(index)
                problem = dataset.problem(index) or dataset.path(index)
                runner.logger.warning(f"cannot read {problem}; another image stands in for it")
