"""Learning-rate schedules beyond mmengine's."""

from mmengine.config import Config
from mmengine.optim.scheduler import CosineAnnealingLR

from densessl.errors import UserError
from densessl.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class HoldableCosineLR(CosineAnnealingLR):
    """mmengine's ``CosineAnnealingLR``, but parameter groups with ``fix_lr`` keep their rate.

    A group gets the mark from ``optim_wrapper.paramwise_cfg.custom_keys``, e.g.
    ``dict(predictor=dict(fix_lr=True))``.
    """

    def _get_value(self) -> list[float]:
        return [
            group[self.param_name] if group.get("fix_lr") else value
            for group, value in zip(self.optimizer.param_groups, super()._get_value(), strict=True)
        ]


def check_schedules(cfg: Config) -> None:
    """Checks that training is longer than the warm-up; schedules end with it by themselves.

    Raises:
        UserError: If a schedule by epochs begins when training is over.
    """
    schedules, epochs = cfg.get("param_scheduler") or [], cfg.train_cfg.max_epochs
    for number, schedule in enumerate(schedules if isinstance(schedules, list) else [schedules]):
        begin = schedule.get("begin", 0)
        if schedule.get("by_epoch", True) and begin >= epochs:
            raise UserError(
                f"train_cfg.max_epochs is {epochs}, and param_scheduler.{number}, a "
                f"{schedule.type}, begins at epoch {begin}.",
                "train for longer, or shorten the warm-up: --cfg-options "
                f"param_scheduler.{number - 1}.end=N param_scheduler.{number}.begin=N",
            )
