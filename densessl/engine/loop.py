"""The training loop: epochs that can be resumed in the middle, and stopped after some steps."""

import math

import torch
from mmengine.dist import get_dist_info
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader

from densessl.errors import UserError
from densessl.registry import LOOPS


def end_workers(loader: DataLoader | None) -> None:
    """Ends persistent workers. Left to the garbage collector, queues go first: 5 s a worker."""
    workers = getattr(loader, "_iterator", None)
    if workers is not None:
        workers._shutdown_workers()


@LOOPS.register_module()
class PretrainLoop(EpochBasedTrainLoop):
    """mmengine's epoch loop in which one iteration is one optimizer step.

    Args:
        runner: The runner.
        dataloader: Its sampler is a ``ViewSampler``.
        max_epochs: Length of training, and of the schedules.
        max_steps: Stop after so many optimizer steps; the schedules keep their length.

    Raises:
        UserError: If the data do not fill a single step, or incomplete ones are asked for.
    """

    def __init__(self, runner, dataloader, max_epochs: int, max_steps: int | None = None):
        super().__init__(runner, dataloader, max_epochs)
        batch, images = self.dataloader.batch_size, len(self.dataloader.sampler)
        if batch > images:
            raise UserError(
                f"The batch of {batch} images a step is larger than the data set of {images}"
                + (f" on each of {runner.world_size} ranks." if runner.world_size > 1 else "."),
                "lower it with --cfg-options train_dataloader.batch_size=N, or add images",
            )
        if not self.dataloader.drop_last:
            raise UserError(
                "train_dataloader.drop_last is False: every step needs a whole batch.",
                "leave it out; what an epoch leaves over comes in another one",
            )
        self.max_steps = math.inf if max_steps is None else max_steps
        self.epoch_began = 0  # optimizer steps before the current epoch
        self._batches = None

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all epochs. Those behind a resume may have been of another length."""
        return self.epoch_began + (self._max_epochs - self._epoch) * len(self.dataloader)

    @property
    def max_iters(self) -> int:
        """Optimizer steps at the end of this training, for the log's time left."""
        return min(self.total_steps, self.max_steps)

    def run(self):
        """Trains to the end, which a resumed run may have reached already."""
        self.stop_training = self._iter >= self.max_steps
        if self._epoch >= self._max_epochs or self.stop_training:
            self.runner.logger.warning("there is nothing left to train")
        return super().run()

    def run_epoch(self) -> None:
        """One epoch, or what is left of it after a resume."""
        done = self._iter - self.epoch_began
        if self._batches is None:
            sampler = self.dataloader.sampler
            sampler.set_epoch(self._epoch)
            sampler.start = done * self.dataloader.batch_size
            sampler.follow_on(self.dataloader.batch_size)
            self._batches = iter(self.dataloader)
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        for index in range(done, len(self.dataloader)):
            batch = next(self._batches)
            torch.manual_seed(self._seed_of_step())
            self.run_iter(index, batch)
            if self._iter >= self.max_steps:
                self.stop_training = True
                break
        if self._iter - self.epoch_began == len(self.dataloader):
            self.runner.call_hook("after_train_epoch")
            self._epoch += 1
            self.epoch_began = self._iter
        if self.stop_training and self._epoch < self._max_epochs:
            self.runner.save_now(self._iter)

    def _seed_of_step(self) -> int:
        """For what layers draw, as DropPath does: a resumed run draws the same, ranks do not."""
        rank, world_size = get_dist_info()
        return (self.dataloader.sampler.seed * 1000003 + self._iter) * world_size + rank
