"""What a pretraining config must be: a misspelt key is named and not ignored."""

import difflib
import inspect
import io
import warnings
from contextlib import redirect_stdout
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.hooks import EarlyStoppingHook
from mmengine.registry import Registry
from mmengine.registry import root as mm_root
from mmengine.runner import LogProcessor, Runner
from torch.utils.data import DataLoader

import densessl.registry as registries
from densessl.engine.hooks import OUR_HOOKS
from densessl.engine.recipe import flat
from densessl.engine.values import check_model_values, check_sections, check_values
from densessl.errors import UserError
from densessl.suggest import did_you_mean

# What mmengine reads inside dicts that have no `type`.
UNTYPED_KEYS = {
    "train_dataloader": {*inspect.signature(DataLoader).parameters},
    "log_processor": {*inspect.signature(LogProcessor).parameters},
    "auto_scale_lr": {"base_batch_size", "enable"},
    "randomness": {"seed", "deterministic", "diff_rank_seed"},
    "env_cfg": {"cudnn_benchmark", "mp_cfg", "dist_cfg", "resource_limit"},
    "env_cfg.mp_cfg": {"mp_start_method", "opencv_num_threads"},
    "optim_wrapper.clip_grad": {
        *("type", "max_norm", "norm_type", "error_if_nonfinite", "foreach", "clip_value")
    },
    "optim_wrapper.paramwise_cfg": {
        *("custom_keys", "bypass_duplicate", "bias_lr_mult", "bias_decay_mult"),
        *("norm_decay_mult", "flat_decay_mult", "dwconv_decay_mult", "dcn_offset_lr_mult"),
    },
    "train_cfg": {"max_epochs", "max_steps"},
}
TOP_KEYS = {
    *inspect.signature(Runner.__init__).parameters,
    "compile",
    "custom_imports",
    "model_wrapper_cfg",
    "vis_backends",  # mm's configs name it, for the visualizer below
} - {"self", "cfg"}
# What a training here asks more of than mmengine's own classes do.
OURS = {
    "train_cfg": (
        "PretrainLoop",
        "leave type out, and give max_epochs (max_steps stops early)",
    ),
    "optim_wrapper": (
        "PrecisionOptimWrapper",
        "leave type out: optim_wrapper.precision is 'bf16', 'fp32' or 'auto'",
    ),
    "train_dataloader.sampler": ("ViewSampler", "leave it out: images come shuffled"),
    "model_wrapper_cfg": (
        "PretrainDDP",
        "leave type out, and give DistributedDataParallel's options",
    ),
}
OTHER_PROJECTS = ("mmdet", "mmseg", "mmpretrain")
# What is taken out of a dict before its type is built; items of lists are not numbered here.
BUILDER_KEYS = {
    "optim_wrapper": {"constructor", "paramwise_cfg"},
    "param_scheduler": {"convert_to_iter_based"},
}


def check_config(cfg: Config) -> None:
    """Checks every key of a pretraining config against what reads it, and the usual numbers.

    Top-level names that begin with ``_`` are the config's own and are left alone.

    Raises:
        UserError: Names the first key or type that nothing reads, and the nearest known one, or
            the number that cannot be.
    """
    if "transfer" in cfg:
        raise UserError(
            "This config is for fine-tuning, not for pretraining.",
            "run it with tools/transfer.py CONFIG --init NAME=CHECKPOINT --data DIR --work-dir DIR",
        )
    check_values(cfg)  # first, because the keys are looked for in what it expects
    for key, value in cfg.items():
        if key.startswith("_"):
            continue
        if key not in TOP_KEYS and not isinstance(value, dict):
            _suggest_deeper(key, cfg)
        _check_known(key, TOP_KEYS, "the config")
        if key == "default_hooks":
            _check_hooks(value)
        else:
            _check_value(value, key)
    check_sections(cfg)
    check_model_values(cfg.model)
    _check_no_validation(cfg)


def _check_ours(target: Any, where: str, kind: str) -> None:
    """Raises ``UserError`` if what ``where`` names does less than a training here needs."""
    ours, remedy = OURS[where]
    if not (inspect.isclass(target) and issubclass(target, _resolve(ours, where))):
        raise UserError(f"{where}.type is {kind}, and pretraining needs a {ours}.", remedy)


def _check_no_validation(cfg: Config) -> None:
    defaults = cfg.get("default_hooks") or {}
    hooks = [*(cfg.get("custom_hooks") or []), *defaults.values()]
    kinds = [_resolve(hook["type"], "a hook") for hook in hooks if hook and "type" in hook]
    stopping = any(inspect.isclass(kind) and issubclass(kind, EarlyStoppingHook) for kind in kinds)
    best = defaults.get("checkpoint") or {}
    if stopping or best.get("save_best"):
        what = "EarlyStoppingHook" if stopping else "default_hooks.checkpoint.save_best"
        raise UserError(
            f"{what} needs validation scores, and pretraining has no validation.",
            "leave it out, and choose among the checkpoints by what EvaluationHook logs",
        )


def _check_hooks(hooks: dict[str, Any]) -> None:
    known = {name for name, hook in hooks.items() if hook and "type" in hook} | {*OUR_HOOKS}
    for name, hook in hooks.items():
        if hook is not None:
            _check_known(name, known, "default_hooks")
            _check_dict({**OUR_HOOKS.get(name, {}), **hook}, f"default_hooks.{name}")


def _check_value(value: Any, where: str) -> None:
    if isinstance(value, list | tuple):
        for number, item in enumerate(value):
            _check_value(item, f"{where}.{number}")
    elif isinstance(value, dict):
        _check_dict(value, where)


def _check_dict(value: ConfigDict, where: str) -> None:
    deeper = "type" in value or where in UNTYPED_KEYS
    if "type" in value and "type" not in UNTYPED_KEYS.get(where, ()):
        target = _resolve(value["type"], where)
        if where in OURS:
            _check_ours(target, where, value["type"])
        known = _parameters(target)
        if known is not None:
            known = known | BUILDER_KEYS.get(where.rstrip(".0123456789"), set())
        deeper = _hands_on(target.__module__)
    else:
        known = UNTYPED_KEYS.get(where)
    for key, item in value.items():
        if known is not None and key not in ("type", "_scope_", "_delete_"):
            _check_known(key, known, where)
        # Free-form arguments (dist_cfg, view specs) are judged by what reads them.
        if deeper:
            _check_value(item, f"{where}.{key}")


def _hands_on(module: str) -> bool:
    """Whether dicts inside of what ``module`` builds are of parts that are built too. Parts of
    others, a user's own among them, take out of theirs what they please (``norm_cfg``)."""
    return module.split(".")[0] in ("densessl", "mmengine", "torch") and (
        not module.startswith("mmengine.hooks")
    )


def _suggest_deeper(key: str, cfg: Config) -> None:
    """Raises ``UserError`` if a key at the top has the name of one further down."""
    deeper = {
        dotted.rpartition(".")[2]: dotted
        for section in ("model", "optim_wrapper", "train_dataloader", "train_cfg")
        for dotted in flat(cfg.get(section) or {}, section)
    }
    near = difflib.get_close_matches(key, deeper, n=1, cutoff=0.7)
    if near:
        right = deeper[near[0]]
        raise UserError(
            f"Unknown key '{key}' in the config, did you mean {right}?",
            f"from Python: {right.replace('.', '__')}=..., else --cfg-options {right}=...",
        )


def _check_known(key: str, known: set[str], where: str) -> None:
    if key not in known:
        raise UserError(
            f"Unknown key '{key}' in {where}{did_you_mean(key, known)}.",
            f"use one of: {', '.join(sorted(known))}"
            + (
                ", or begin the name with _ for a variable of your own"
                if where == "the config"
                else ""
            ),
        )


def _registries() -> list[Registry]:
    ours = [value for value in vars(registries).values() if isinstance(value, Registry)]
    theirs = [value for value in vars(mm_root).values() if isinstance(value, Registry)]
    return ours + theirs


def _resolve(type_name: Any, where: str) -> Any:
    """The class or function that the ``type`` of a dict names."""
    if callable(type_name):
        return type_name
    name = str(type_name)
    known: dict[str, Any] = {}
    for registry in reversed(_registries()):  # ours last, so that they win
        registry.import_from_location()
        known |= registry.module_dict
    # With a dot it is of another project, or a Python path.
    found = _find(name) if "." in name else known.get(name)
    if found is not None:
        return found
    project = name.partition(".")[0]
    if project in OTHER_PROJECTS:
        raise UserError(
            f"{project} has no '{name}' for {where}, or is not installed.",
            'check the name; mmdet and mmseg come with pip install -e ".[transfer]" '
            "--no-build-isolation",
        )
    elsewhere = [f"{other}.{name}" for other in OTHER_PROJECTS if _find(f"{other}.{name}")]
    if elsewhere:
        raise UserError(
            f"Unknown type '{type_name}' in {where}.",
            f"if it is of another project, write {' or '.join(elsewhere)}",
        )
    raise UserError(
        f"Unknown type '{type_name}' in {where}{did_you_mean(name, known)}.",
        "check the name; types of your own are registered by custom_imports in the config",
    )


def _find(name: str) -> Any:
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmdet and mmseg print and warn when imported
        return next(filter(None, (registry.get(name) for registry in _registries())), None)


def _parameters(target: Any) -> set[str] | None:
    """Parameters of a callable; through ``**kwargs`` those of the base classes are added. None when
    it accepts any."""
    names: set[str] = set()
    for owner in inspect.getmro(target) if inspect.isclass(target) else (target,):
        if inspect.isclass(owner):
            if "__init__" not in vars(owner):
                continue
            owner = owner.__init__
        parameters = inspect.signature(owner).parameters.values()
        names |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            return names - {"self", "runner", "dataloader", "params", "optimizer_params"}
    return None
