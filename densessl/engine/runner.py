"""mmengine's Runner with safe resuming, atomic checkpoints and our meta data in them."""

import logging
import os
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import (
    all_gather_object,
    barrier,
    is_distributed,
    is_main_process,
    master_only,
)
from mmengine.hooks import EMAHook
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import LinearLR
from mmengine.runner import Runner
from torch.utils.data import Dataset

from densessl.checkpoint import CHECKPOINT_FORMAT, load_checkpoint
from densessl.conversion.coverage import compare_state
from densessl.engine.beginning import begin_with
from densessl.engine.compiling import compile_networks
from densessl.engine.hooks import OUR_HOOKS, method_of
from densessl.engine.loop import end_workers
from densessl.engine.message_hub import DeferredMessageHub
from densessl.engine.recipe import RESTORED, differences, recipe_of
from densessl.environment import CORE_PACKAGES, package_versions
from densessl.errors import UserError
from densessl.files import check_free_space, explained, open_atomically


def _nothing(record: logging.LogRecord) -> bool:
    return False


def _not_of_mmengine_itself(record: logging.LogRecord) -> bool:
    """mmengine warns at every start that parts of it, which it uses itself, will go, and with
    ``paramwise_cfg`` of each parameter of the teacher, which no optimizer ever gets."""
    text = record.getMessage()
    return not text.startswith(('"FileClient"', '"HardDiskBackend"', "teacher."))


class PretrainRunner(Runner):
    """The Runner of pretraining. One iteration is one optimizer step of all micro-batches."""

    _restored: dict = {}  # of the recipe, what came from the checkpoint that was resumed
    _superseded: Path | None = None  # that checkpoint, if nobody needs it after the next
    resumed_at: int | None = None  # optimizer steps in it
    has_saved = False  # whether rank 0 has written a checkpoint since

    @classmethod
    def from_cfg(cls, cfg: Config, dataset: Dataset) -> "PretrainRunner":
        """Builds a runner; its loader gives all micro-batches of a step in one batch.

        Args:
            cfg: The config.
            dataset: What its ``train_dataloader.dataset`` describes.
        """
        runner = super().from_cfg(cfg)
        accumulation = cfg.optim_wrapper.get("accumulative_counts", 1)
        runner._train_dataloader["batch_size"] *= accumulation
        runner._train_dataloader["dataset"] = dataset
        return runner

    @property
    def _experiment_name(self) -> str:
        """mmengine's, whose time stamp has seconds: a second run in one would write into the log of
        the first."""
        return self._unique_name

    @_experiment_name.setter
    def _experiment_name(self, name: str) -> None:
        while MMLogger.check_instance_created(name):
            name += "_"
        self._unique_name = name

    def setup_env(self, env_cfg: dict) -> None:
        """As mmengine's, which wants a GPU for torchrun; without one the group is made here."""
        if self._launcher == "pytorch" and not torch.cuda.is_available() and not is_distributed():
            torch.distributed.init_process_group("gloo")
        super().setup_env(env_cfg)

    def build_model(self, model: dict) -> torch.nn.Module:
        """As mmengine's, with weights in the memory format of the views."""
        return super().build_model(model).to(memory_format=torch.channels_last)

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """As mmengine's, without its warnings about itself."""
        logger = super().build_logger(*args, **kwargs)
        logger.addFilter(_not_of_mmengine_itself)
        return logger

    def build_message_hub(self, message_hub: dict | None = None) -> MessageHub:
        """One that does not wait for the device at every step."""
        hub = DeferredMessageHub.get_instance(self.experiment_name)
        # mmengine's own parts ask its base class for the current one.
        MessageHub._instance_dict[self.experiment_name] = hub
        return hub

    def _maybe_compile(self, target: str) -> None:
        """As the config's ``compile`` says, but the networks and not the whole step."""
        compile_networks(method_of(self), self.cfg.get("compile"))

    def _log_env(self, env_cfg: dict) -> None:
        """Environment and config go to the log file; on the console they hide what matters."""
        consoles = [h for h in self.logger.handlers if not isinstance(h, logging.FileHandler)]
        for handler in consoles:
            handler.addFilter(_nothing)
        super()._log_env(env_cfg)
        for handler in consoles:
            handler.removeFilter(_nothing)

    def get_hooks_info(self) -> str:
        """The hooks' names in one line instead of a page."""
        return ", ".join(type(hook).__name__ for hook in self.hooks)

    def register_default_hooks(self, hooks: dict | None = None) -> None:
        """Training is wrong without ours, so they are there whatever the config says."""
        hooks = dict(hooks or {}, sampler_seed=None)  # the loop tells the sampler itself
        steps = self._train_loop.get("max_steps")
        if steps and hooks.get("logger"):  # a trial of a few steps shows its loss too
            interval = min(hooks["logger"].get("interval", 10), steps)
            hooks["logger"] = dict(hooks["logger"], interval=interval)
        for name, hook in OUR_HOOKS.items():
            hooks[name] = {**hook, **(hooks.get(name) or {})}
        super().register_default_hooks(hooks)

    def train(self) -> torch.nn.Module:
        """As mmengine's; however training ended, signals act as before, no worker is left, and the
        log's file is closed."""
        try:
            return super().train()
        finally:
            self.call_hook("however_it_ended")
            end_workers(getattr(self._train_loop, "dataloader", None))
            for handler in [*self.logger.handlers]:
                if isinstance(handler, logging.FileHandler):
                    self.logger.removeHandler(handler)
                    handler.close()

    def build_param_scheduler(self, scheduler) -> list:
        """As mmengine's, but schedules by steps end with the epochs, whatever ``max_steps`` is.

        A warm-up that outlasts the training is warned of.

        Raises:
            UserError: A ``LinearLR`` is so short that the rate would stay at its start.
        """
        steps = self.max_epochs * len(self.train_dataloader)
        asked = scheduler if isinstance(scheduler, list) else [scheduler]
        by_steps = [isinstance(each, dict) and not each.get("by_epoch", True) for each in asked]
        schedulers = super().build_param_scheduler(
            [
                {"end": steps, **each} if own else each
                for each, own in zip(asked, by_steps, strict=True)
            ]
        )
        for number, each in enumerate(schedulers):
            if not isinstance(each, LinearLR):
                continue
            if each.end - each.begin < 2:  # it reaches its end one before
                raise UserError(
                    f"param_scheduler.{number} warms up from {each.begin} to {each.end}: the rate "
                    "would stay where it starts.",
                    "give it 2 or more, or leave it out of param_scheduler",
                )
            if not each.by_epoch and each.end > steps:
                self.logger.warning(
                    f"param_scheduler.{number} warms up for {each.end} steps, and training has "
                    f"{steps}: shorten it with --cfg-options param_scheduler.{number}.end=N"
                )
        return schedulers

    def data_order(self) -> dict:
        """What decides which images a step sees; ``epoch_steps`` of a checkpoint add the place."""
        loader = self.train_dataloader
        return dict(seed=loader.sampler.seed, images_per_step=loader.batch_size * self.world_size)

    def meta(self, epoch: int, iter: int, stopped: bool = False) -> dict:
        """What a checkpoint says about itself beside mmengine's own entries.

        Args:
            epoch: Whole epochs behind it.
            iter: Optimizer steps behind it.
            stopped: Whether it is there because of a signal.
        """
        began = self.train_loop.epoch_began if epoch == self.epoch else iter
        method = method_of(self)
        preprocessor = method.data_preprocessor
        transform = self.train_dataloader.dataset.transform
        view_size = getattr(transform, "size", None)
        if hasattr(transform, "size_at"):  # that of the last step
            view_size = transform.size_at(max(epoch - (iter == began), 0))
        imports = (self.cfg.get("custom_imports") or {}).get("imports") or []
        imports = [imports] if isinstance(imports, str) else imports
        return dict(
            format=CHECKPOINT_FORMAT,
            method=type(method).__name__,
            architecture=self.cfg.model.backbone.to_dict(),
            imports=[name for name in imports if name in sys.modules],  # some may be lacking
            recipe=recipe_of(self.cfg) | self._restored,
            input=preprocessor.input,
            view_size=view_size,
            step=method.step,
            versions=package_versions(CORE_PACKAGES),
            data=self.train_dataloader.dataset.metainfo,
            order=dict(self.data_order(), epoch_steps=iter - began),
            epoch=epoch,
            iter=iter,
            stopped=stopped,
        )

    @master_only
    def save_checkpoint(self, out_dir: str, filename: str, *args, meta: dict, **kwargs) -> None:
        """As mmengine's, with ``meta()`` in it, and whole or not at all."""
        path, partial = Path(out_dir, filename), Path(out_dir, f"{filename}.part")
        meta = self.meta(**meta)
        try:
            with explained(path):
                super().save_checkpoint(out_dir, partial.name, *args, meta=meta, **kwargs)
                with open(partial, "rb") as file:
                    os.fsync(file.fileno())
                os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        self.has_saved = True
        if self._superseded and self._superseded != path:
            self._superseded.unlink(missing_ok=True)
            self._superseded = None

    def save_now(self, steps: int, stopped: bool = False) -> str:
        """Writes a checkpoint after ``steps`` optimizer steps, and returns its path. One that was
        ``stopped`` goes once a training that resumes from it has written another."""
        path = Path(self.work_dir, f"step_{steps}.pth")
        self.save_checkpoint(
            self.work_dir,
            path.name,
            meta=dict(epoch=self.epoch, iter=steps, stopped=stopped),
            by_epoch=False,
        )
        if is_main_process():
            with open_atomically(Path(self.work_dir, "last_checkpoint")) as file:
                file.write(str(path).encode())
        barrier()  # torchrun ends all ranks when one does: not before it is written
        return str(path)

    def check_space(self) -> None:
        """Raises ``UserError`` if the checkpoints to come do not fit on the disk."""
        method = method_of(self)
        weights = sum(t.numel() * t.element_size() for t in method.state_dict().values())
        moments = sum(p.numel() * p.element_size() for p in method.parameters() if p.requires_grad)
        hook = (self.cfg.get("default_hooks") or {}).get("checkpoint") or {}
        kept = hook.get("max_keep_ckpts", -1)
        there = len([*Path(self.work_dir).glob("*_[0-9]*.pth")])  # which go as new ones come
        count = max(1, kept + 2 - there) if kept > 0 else 3
        check_free_space(self.work_dir, count * (weights + 2 * moments), "the checkpoints")

    def dump_config(self) -> None:
        """mmengine calls it early; ``load_or_resume`` writes the config once it is known to fit."""

    def load_or_resume(self) -> None:
        """As mmengine's, but all ranks do the same, and ``load_from`` alone is ``begin_with``.

        Raises:
            UserError: If the ranks do not find the same images and checkpoints.
        """
        dataset = self.train_dataloader.dataset
        own = ((self._resume, self._load_from), dataset.metainfo["sha256"])
        plans, images = zip(*all_gather_object(own), strict=True)
        if len({*plans}) > 1:
            raise UserError(
                f"The processes do not find the same checkpoints in {self.work_dir}.",
                "use a --work-dir that all machines share",
            )
        if len({*images}) > 1:
            raise UserError(
                f"The processes do not find the same images in {dataset.root}.",
                "give all machines the same files, under the same names",
            )
        if self._load_from and not self._resume and not self._has_loaded:
            begin_with(self._load_from, method_of(self), self.logger)
            self._has_loaded = True
        super().load_or_resume()
        super().dump_config()

    def resume(self, filename: str, **kwargs) -> None:
        """As mmengine's, inside an epoch too, after checking that the checkpoint fits this model.

        Raises:
            UserError: If the file is unsafe, broken, no training's, or of another model.
        """
        checkpoint = load_checkpoint(filename)
        meta = checkpoint.get("meta") or {}
        if meta.get("format") != CHECKPOINT_FORMAT:
            raise UserError(
                f"{filename} cannot be resumed: it is not as tools/train.py writes it.",
                "resume from a checkpoint that tools/train.py wrote, not from an exported one",
            )
        same_images = meta["data"] == self.train_dataloader.dataset.metainfo
        method_of(self).check_resume(checkpoint["state_dict"], same_images)
        coverage = compare_state(method_of(self).state_dict(), checkpoint["state_dict"])
        if not coverage.complete:
            raise UserError(
                f"{filename} belongs to another model than this config builds:\n{coverage.table()}",
                "resume with the config it was trained with (it lies beside the checkpoint), or "
                "start a new run in another --work-dir",
            )
        groups = checkpoint["optimizer"]["param_groups"], self.optim_wrapper.optimizer.param_groups
        if len({tuple(len(group["params"]) for group in each) for each in groups}) > 1:
            raise UserError(
                f"{filename} groups its parameters in another way: it is of another "
                "optim_wrapper.paramwise_cfg, or of another version of densessl.",
                "go on with the config that wrote it, which lies beside it, and with its version "
                "(see versions in the checkpoint), or begin a new run with --cfg-options "
                f"load_from={filename}",
            )
        # With that hook ``state_dict`` holds the averages, and what was trained lies beside it.
        averaged = "ema_state_dict" in checkpoint
        if averaged and not any(isinstance(hook, EMAHook) for hook in self.hooks):
            raise UserError(
                f"{filename} was trained with an EMAHook, and this config has none: training would "
                "go on from the averaged weights.",
                "put the hook back into custom_hooks, or begin a new run with --cfg-options "
                f"load_from={filename}",
            )
        recipe = meta.get("recipe", {})
        for line in differences(recipe, recipe_of(self.cfg), filename):
            self.logger.warning(line)
        if meta.get("stopped") and Path(filename).parent.samefile(self.work_dir):
            self._superseded = Path(filename)
        self._restored = {part: recipe[part] for part in RESTORED if part in recipe}
        if meta.get("seed") != self._randomness_cfg.get("seed"):
            self.logger.info(f"the seed stays the checkpoint's, {meta.get('seed')}")
        ends = [scheduler.end for scheduler in self.param_schedulers or []]
        self._randomness_cfg["seed"] = None  # the checkpoint's decides, and mmengine need not warn
        super().resume(filename, **kwargs)
        self.resumed_at = self.iter
        self._resume_order(meta)
        kept = [scheduler.end for scheduler in self.param_schedulers or []]
        if kept[-1:] != ends[-1:]:
            unit = "epoch" if self.param_schedulers[-1].by_epoch else "step"
            self.logger.warning(
                f"the schedule in the checkpoint ends at {unit} {kept[-1]}, and one of this "
                f"training would end at {unit} {ends[-1]}: the learning rate stays the checkpoint's"
            )

    def _resume_order(self, meta: dict) -> None:
        """Goes on after the last image seen, if images and batch are still the same."""
        loader, order = self.train_dataloader, dict(meta["order"])
        epoch_steps = order.pop("epoch_steps")
        loader.sampler.seed = order["seed"]
        if meta["data"] != loader.dataset.metainfo or order != self.data_order():
            self.logger.warning(
                f"the images or the batch have changed: epoch {self.epoch + 1} starts again, the "
                "learning rate stays the checkpoint's"
            )
            epoch_steps = 0
        self.train_loop.epoch_began = self.iter - epoch_steps
