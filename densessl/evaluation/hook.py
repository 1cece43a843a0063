"""Frozen evaluation while training."""

from collections.abc import Sequence
from datetime import timedelta

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from densessl.engine.hooks import method_of
from densessl.engine.values import OR_NEVER
from densessl.errors import UserError
from densessl.evaluation.evaluate import check_settings, judge, read_for
from densessl.evaluation.features import C5, FrozenBackbone
from densessl.evaluation.tasks import Settings
from densessl.models import MoCoV3
from densessl.numeric import POSITIVE_WHOLE, WHOLE
from densessl.registry import HOOKS

RULES = dict(interval=OR_NEVER, batch_size=POSITIVE_WHOLE, workers=WHOLE)


@HOOKS.register_module()
class EvaluationHook(Hook):
    """Logs ``eval/knn_top1`` and the like every few epochs; training goes on as without it.

    Rank 0 evaluates, the others wait. The labels are read before the first step, so that a mistake
    in them or here is said then; an evaluation that fails later costs a warning, not the run.
    Where the backbone is, there the features are judged too.

    Args:
        data: The labelled folder.
        tasks: Of ``knn``, ``linear``, ``crops``, ``dense`` and ``cells``.
        interval: Epochs between evaluations; the last epoch is always evaluated.
        size: Side of the images in pixels; by default that of the views, of a schedule the last.
        k: Neighbours that vote.
        limit: At most so many samples to learn from; what is judged on stays whole.
        seed: Of the split and of ``limit``.
        which: ``student`` or ``teacher``.
        batch_size: Images at a time.
        workers: Processes that decode.
    """

    def __init__(
        self,
        data: str,
        tasks: Sequence[str] = ("knn",),
        interval: int = 1,
        size: int | None = None,
        k: int = 20,
        limit: int | None = None,
        seed: int = 0,
        which: str = "student",
        batch_size: int = 64,
        workers: int = 0,
    ):
        self.data, self.tasks, self.interval, self.which = data, tuple(tasks), interval, which
        self.size, self.options = size, dict(k=k, limit=limit, seed=seed)
        self.reading = dict(batch_size=batch_size, workers=workers)

    def before_train(self, runner: Runner) -> None:
        if get_world_size() > 1:  # NCCL would give up waiting after ten minutes
            self._group = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=1))
        self.frozen = self._frozen(runner)
        size = self.frozen.size if self.size is None else self.size
        self.settings = Settings(size, **self.options)
        check_settings(self.settings)
        for name, value in dict(interval=self.interval, **self.reading).items():
            if not RULES[name].fits(value):
                raise UserError(f"EvaluationHook.{name} is {value!r}.", f"give {RULES[name].words}")
        self.found = read_for(self.tasks, self.data, seed=self.options["seed"])

    def after_train_epoch(self, runner: Runner) -> None:
        last = runner.epoch + 1 == runner.max_epochs
        if self.every_n_epochs(runner, self.interval) or last:
            if is_main_process():
                self._evaluate(runner)
            if get_world_size() > 1:
                torch.distributed.barrier(self._group)

    def _frozen(self, runner: Runner) -> FrozenBackbone:
        method = method_of(runner)
        owner = method if self.which == "student" else getattr(method, "teacher", None)
        if self.which not in ("student", "teacher") or owner is None:
            raise UserError(
                f"EvaluationHook.which is '{self.which}', and {type(method).__name__} has no such "
                "backbone.",
                "set it to 'student'",
            )
        return FrozenBackbone(
            owner.backbone,
            method.data_preprocessor.input,
            getattr(owner.backbone, "out_indices", C5),
            view_size=getattr(runner.train_dataloader.dataset.transform, "size", None),
            token=isinstance(method, MoCoV3),
        )

    def _evaluate(self, runner: Runner) -> None:
        try:
            result = judge(self.frozen, self.found, self.tasks, self.settings, **self.reading)
        except Exception as error:  # the other ranks wait, and the training is worth more
            text = (
                str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            )
            runner.logger.warning(f"no evaluation: {' '.join(text.split())}")
            return
        figures = {f"eval/{name}": value for name, value in result["metrics"].items()}
        for name, value in figures.items():
            runner.message_hub.update_scalar(name, value)
        runner.visualizer.add_scalars(figures, step=runner.iter)
        shown = ", ".join(f"{name} {value:.1f}" for name, value in figures.items())
        runner.logger.info(f"{shown} ({result['seconds']:.0f} s)")
