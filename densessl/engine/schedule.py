"""Learning-rate schedules beyond mmengine's."""

from mmengine.optim.scheduler import CosineAnnealingLR

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
