"""What other recipes cost: whole training steps, each in a process of its own."""

import copy
from functools import partial
from typing import Any

import torch
from mmengine.config import Config

from densessl.benchmark.measure import gain
from densessl.benchmark.setup import build_dataset
from densessl.benchmark.step import TrainingStep, Work, cost_of_steps
from densessl.models import ResNet
from densessl.registry import MODELS

SIDES = (5 / 7, 6 / 7)  # 160 and 192 of 224, before that
SHARES = (0.3, 0.3, 0.4)  # of the epochs


def of_whole_steps(cfg: Config, device: torch.device, repeats: int) -> dict[str, Any]:
    """Memory kept on a CPU; for our ResNets gradient checkpointing, and small views first.

    The last is no other way to the same, but another training: ``with`` is the mean step of an
    epoch where the views grow, 0.3 of the epochs at 5/7 of the side, 0.3 at 6/7.

    Args:
        cfg: See ``recipe``.
        device: Where.
        repeats: Timed steps.
    """
    works: dict[str, Work] = {"plain": (TrainingStep, cfg)}
    if device.type == "cpu":
        works["memory given back"] = partial(TrainingStep, keep_memory=False), cfg
    ours = MODELS.get(cfg.model.backbone.type) is ResNet and not cfg.get("compile")
    if ours:
        works["with_cp"] = TrainingStep, _changed(cfg, "model.backbone.with_cp", True)
    views = build_dataset(cfg).transform.views_at(0)
    sides = {view.size for view in views}
    may_grow = ours and len(sides) == 1 and all(view.side == view.size for view in views)
    for number, part in enumerate(SIDES if may_grow else ()):
        side = 32 * round(max(sides) * part / 32)
        works[f"stage {number}"] = (
            TrainingStep,
            _changed(cfg, "train_dataloader.dataset.transform.size", side),
        )
    if len(works) == 1:
        return {}
    costs = cost_of_steps(works, repeats, device)
    seconds = {name: [spent for spent, _ in values] for name, values in costs.items()}
    peak = {name: max(memory for _, memory in values) for name, values in costs.items()}
    result = {}
    if "memory given back" in works:
        result["kept_memory"] = gain(seconds["plain"], seconds["memory given back"])
    if "with_cp" in works:
        memory = {"with": peak["with_cp"], "without": peak["plain"]}
        result["with_cp"] = gain(seconds["with_cp"], seconds["plain"]) | dict(peak_mb=memory)
    if may_grow:
        stages = [seconds[f"stage {number}"] for number in range(len(SIDES))]
        rounds = zip(*stages, seconds["plain"], strict=True)
        mean = [sum(w * s for w, s in zip(SHARES, steps, strict=True)) for steps in rounds]
        result["small_views_first"] = gain(mean, seconds["plain"])
    return result


def _changed(cfg: Config, key: str, value: object) -> Config:
    other = copy.deepcopy(cfg)
    other.merge_from_dict({key: value})
    return other
