"""Numbers of a config that are checked before any work: wrong, they fail late or not at all."""

import inspect
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from densessl.errors import UserError
from densessl.numeric import (
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_WHOLE,
    SHARE,
    WHOLE,
    Rule,
    are_dicts,
    is_real,
    is_whole,
)
from densessl.registry import MODELS
from densessl.structures import SEEDS

SEED = Rule(f"a whole number from 0 to {SEEDS[-1]}", lambda v: is_whole(v) and v in SEEDS)
OR_NEVER = Rule("a whole number above 0, or -1", lambda v: is_whole(v) and (v > 0 or v == -1))
TEXT = Rule("a string", lambda v: isinstance(v, str))
START = Rule("'fork', 'spawn' or 'forkserver'", lambda v: v in ("fork", "spawn", "forkserver"))
RULES = {
    "train_dataloader.batch_size": POSITIVE_WHOLE,
    "train_dataloader.num_workers": WHOLE,
    "train_dataloader.dataset.max_broken": SHARE,
    "optim_wrapper.accumulative_counts": POSITIVE_WHOLE,
    "optim_wrapper.optimizer.lr": POSITIVE,
    "optim_wrapper.optimizer.weight_decay": NOT_NEGATIVE,
    "optim_wrapper.clip_grad.max_norm": POSITIVE,
    "auto_scale_lr.base_batch_size": POSITIVE_WHOLE,
    "train_cfg.max_epochs": POSITIVE_WHOLE,
    "train_cfg.max_steps": POSITIVE_WHOLE,
    "default_hooks.logger.interval": POSITIVE_WHOLE,
    "default_hooks.checkpoint.interval": OR_NEVER,
    "default_hooks.checkpoint.max_keep_ckpts": OR_NEVER,
    "log_processor.window_size": POSITIVE_WHOLE,
    "default_hooks.finite_loss.interval": POSITIVE_WHOLE,
    "env_cfg.mp_cfg.mp_start_method": START,
    "randomness.seed": SEED,
    "train_dataloader.sampler": Rule("a dict, or leave it out", lambda v: isinstance(v, dict)),
    "param_scheduler": Rule("a list of dicts", lambda v: isinstance(v, dict) or are_dicts(v)),
    "custom_hooks": Rule("a list of dicts", are_dicts),
    "default_hooks": Rule(
        "a dict that has a dict, or None, for each hook",
        lambda v: isinstance(v, dict) and are_dicts([h for h in v.values() if h is not None]),
    ),
    "default_scope": TEXT,
    "log_processor.mean_pattern": TEXT,
}
# Of each schedule; the rest is judged when it is built.
SCHEDULE_RULES = {
    "eta_min": NOT_NEGATIVE,
    "eta_min_ratio": SHARE,
    "start_factor": Rule("a number above 0, at most 1", lambda v: is_real(v) and 0 < v <= 1),
}
# Of our methods, heads, matches and losses alike, wherever they stand below ``model``.
MODEL_RULES = {
    "temperature": POSITIVE,
    "margin": POSITIVE,
    "momentum": SHARE,
    "end_momentum": SHARE,
    "loss_lambda": SHARE,
    "queue_size": POSITIVE_WHOLE,
    "num_negatives": POSITIVE_WHOLE,
    "num_pairs": POSITIVE_WHOLE,
    "out_channels": POSITIVE_WHOLE,
    "grid": POSITIVE_WHOLE,
    "warmup_steps": WHOLE,
    "num_blocks": WHOLE,
    **dict.fromkeys(("width", "dim", "num_patches", "num_permutations"), POSITIVE_WHOLE),
    **dict.fromkeys(("scale", "clip", "threshold"), POSITIVE),
    **dict.fromkeys(("sim_weight", "var_weight", "cov_weight", "instance_weight"), NOT_NEGATIVE),
    **dict.fromkeys(("global_weight", "local_weight", "prior_weight"), NOT_NEGATIVE),
    **dict.fromkeys(("lambd", "proximal", "penalty", "gamma"), NOT_NEGATIVE),
}
MAY_BE_NONE = {
    *("max_steps", "max_norm", "seed", "eta_min", "eta_min_ratio"),
    *("sampler", "param_scheduler", "custom_hooks", "default_scope"),
}
SECTIONS = ("model", "train_dataloader", "train_dataloader.dataset", "train_cfg", "optim_wrapper")
MISSING = object()


def _at(cfg: Config, key: str) -> Any:
    value: Any = cfg
    for part in key.split("."):
        value = value.get(part, MISSING) if isinstance(value, dict | Config) else MISSING
    return value


def _of_model(part: dict, where: str = "model") -> Iterator[tuple[str, Any, Rule]]:
    """Dotted key, value and rule of what ``MODEL_RULES`` knows, in parts of ours."""
    kind = part.get("type")
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    ours = kind is None or kind.__module__.startswith("densessl.")
    for name, value in part.items():
        if name in MODEL_RULES:
            if ours and not (value is None and _default(kind, name) is None):
                yield f"{where}.{name}", value, MODEL_RULES[name]
        elif isinstance(value, dict) and name != "backbone":
            yield from _of_model(value, f"{where}.{name}")


def _default(kind: type | None, name: str) -> Any:
    """What an argument is by default, of the class or of the base that takes it."""
    for owner in inspect.getmro(kind) if inspect.isclass(kind) else ():
        if "__init__" in vars(owner):
            parameter = inspect.signature(owner.__init__).parameters.get(name)
            if parameter is not None:
                return parameter.default
    return None


def check_sections(cfg: Config) -> None:
    """Checks that the parts are there that every config has.

    Raises:
        UserError: Names the one that is missing or is no dict.
    """
    for key in SECTIONS:
        value = _at(cfg, key)
        if not isinstance(value, dict):
            raise UserError(
                f"{key} is {'missing' if value is MISSING else repr(value)}.",
                "give a dict, as the shipped configs do; one of your own begins with _base_",
            )


def check_values(cfg: Config) -> None:
    """Checks the values that users change most.

    Raises:
        UserError: Names the key, its value and what it must be.
    """
    for key, rule in RULES.items():
        _check(key, _at(cfg, key), rule)
    schedules = cfg.get("param_scheduler") or []
    for number, each in enumerate([schedules] if isinstance(schedules, dict) else schedules):
        for name in SCHEDULE_RULES.keys() & each:
            _check(f"param_scheduler.{number}.{name}", each[name], SCHEDULE_RULES[name])


def check_model_values(model: dict) -> None:
    """The same for the numbers of a pretraining's ``model``; mmdet's parts may have others there.

    Raises:
        UserError: As ``check_values``.
    """
    for key, value, rule in _of_model(model):
        _check(key, value, rule)


def _check(key: str, value: Any, rule: Rule) -> None:
    absent = value is MISSING or value is None and key.rpartition(".")[2] in MAY_BE_NONE
    if not absent and not rule.fits(value):
        raise UserError(f"{key} is {value!r}.", f"give {rule.words}")
