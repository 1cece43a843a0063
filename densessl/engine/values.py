"""Numbers of a config that are checked before any work: wrong, they fail late or not at all."""

from collections.abc import Callable
from typing import Any

from mmengine.config import Config

from densessl.errors import UserError
from densessl.numeric import is_real, is_whole
from densessl.structures import SEEDS

# What the values of some dotted keys must be, in words and as a test.
RULES: dict[str, tuple[Callable[[Any], bool], list[str]]] = {
    "a whole number above 0": (
        lambda value: is_whole(value) and value > 0,
        [
            *("train_dataloader.batch_size", "optim_wrapper.accumulative_counts"),
            *("train_cfg.max_epochs", "train_cfg.max_steps", "model.queue_size", "model.grid"),
            *("model.head.out_channels", "model.dense_head.out_channels"),
            *("default_hooks.logger.interval", "default_hooks.finite_loss.interval"),
        ],
    ),
    "a whole number, 0 or above": (
        lambda value: is_whole(value) and value >= 0,
        ["train_dataloader.num_workers", "model.warmup_steps"],
    ),
    f"a whole number from 0 to {SEEDS[-1]}": (
        lambda value: is_whole(value) and value in SEEDS,
        ["randomness.seed"],
    ),
    "a number above 0": (
        lambda value: is_real(value) and value > 0,
        ["optim_wrapper.optimizer.lr", "optim_wrapper.clip_grad.max_norm", "model.temperature"],
    ),
    "a number from 0 to 1": (
        lambda value: is_real(value) and 0 <= value <= 1,
        [
            *("model.momentum", "model.end_momentum", "model.loss_lambda"),
            *("model.dense.loss_lambda", "train_dataloader.dataset.max_broken"),
        ],
    ),
}
MAY_BE_NONE = {
    *("train_cfg.max_steps", "model.queue_size", "model.grid", "model.end_momentum"),
    *("optim_wrapper.clip_grad.max_norm", "randomness.seed"),
}
SECTIONS = ("model", "train_dataloader", "train_dataloader.dataset", "train_cfg", "optim_wrapper")
MISSING = object()


def _at(cfg: Config, key: str) -> Any:
    value: Any = cfg
    for part in key.split("."):
        value = value.get(part, MISSING) if isinstance(value, dict | Config) else MISSING
    return value


def check_values(cfg: Config) -> None:
    """Checks the parts that every config has, and the numbers that users change most.

    Raises:
        UserError: Names the key, its value and what it must be.
    """
    for key in SECTIONS:
        value = _at(cfg, key)
        if not isinstance(value, dict):
            raise UserError(
                f"{key} is {'missing' if value is MISSING else repr(value)}.",
                "give a dict, as the shipped configs do; one of your own begins with _base_",
            )
    for words, (fits, keys) in RULES.items():
        for key in keys:
            value = _at(cfg, key)
            if value is MISSING or value is None and key in MAY_BE_NONE:
                continue
            if not fits(value):
                raise UserError(f"{key} is {value!r}.", f"give {words}")
