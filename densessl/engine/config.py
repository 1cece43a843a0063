"""Configs: finding, loading and checking them, so that a misspelt key is named and not ignored."""

import inspect
import io
from contextlib import redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import EarlyStoppingHook
from mmengine.registry import Registry
from mmengine.registry import root as mm_root
from mmengine.runner import LogProcessor, Runner
from torch.utils.data import DataLoader

import densessl.registry as registries
from densessl.datasets.images import images_below
from densessl.engine.runner import OUR_HOOKS
from densessl.engine.values import check_values
from densessl.errors import UserError
from densessl.suggest import did_you_mean

# What mmengine reads inside dicts that have no `type`.
UNTYPED_KEYS = {
    "train_dataloader": {*inspect.signature(DataLoader).parameters},
    "log_processor": {*inspect.signature(LogProcessor).parameters},
    "auto_scale_lr": {"base_batch_size", "enable"},
    "randomness": {"seed", "deterministic"},
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
}
OTHER_PROJECTS = ("mmdet", "mmseg", "mmpretrain")
# What is taken out of a dict before its type is built; items of lists are not numbered here.
BUILDER_KEYS = {
    "optim_wrapper": {"constructor", "paramwise_cfg"},
    "param_scheduler": {"convert_to_iter_based"},
}


def config_folder() -> Path:
    """Where the shipped configs are: beside the package, or inside it once installed."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "configs"
    return beside if beside.is_dir() else package / ".mim" / "configs"


def load_config(config: str | Path | Config, options: dict[str, Any] | None = None) -> Config:
    """Loads or copies a config, applies dotted ``options`` and checks every key.

    Args:
        config: A config or its file; a path below the shipped ``configs/`` works from anywhere.
        options: Dotted keys, as ``--cfg-options`` gives them.

    Raises:
        UserError: If the file does not exist or cannot be read, or a key or type is unknown.
    """
    cfg = deepcopy(config) if isinstance(config, Config) else read_config(config)
    apply_options(cfg, options or {})
    check_config(cfg)
    return cfg


def read_config(path: str | Path, below: str = ".") -> Config:
    """Reads a config file without checking its keys.

    Args:
        path: The file; a path below the shipped ``configs/`` or the name of a shipped file works
            from anywhere.
        below: Folder of the shipped configs in which names are looked up.

    Raises:
        UserError: If the file does not exist or cannot be read.
    """
    path, folder = Path(path), config_folder()
    inside = path.parts[1:] if path.parts[:1] == ("configs",) else path.parts
    shipped = {p.name: p for p in (folder / below).rglob("*.py") if "_base_" not in p.parts}
    named = (path, folder.joinpath(*inside), shipped.get(path.name), shipped.get(f"{path.name}.py"))
    found = next((p for p in named if p is not None and p.is_file()), None)
    if found is None:
        raise UserError(
            f"There is no config {path}{did_you_mean(path.stem, shipped)}.",
            f"give the path of a .py file; the shipped ones are in {folder / below}",
        )
    try:
        with redirect_stdout(io.StringIO()):  # mmdet and mmseg print when imported
            return Config.fromfile(found)
    except ImportError as error:
        raise UserError(
            f"The config {found} needs a package that cannot be imported: {error}.",
            'in the checkout of densessl: pip install -e ".[transfer]" --no-build-isolation',
        ) from error
    except Exception as error:  # a config is Python: anything can go wrong in it
        raise UserError(
            f"The config {found} cannot be read: {type(error).__name__}: {error}", "mend that line"
        ) from error


def apply_options(cfg: Config, options: dict[str, Any]) -> None:
    """Merges dotted ``options`` into ``cfg``; ``check_config`` then judges the result.

    Raises:
        UserError: If a key goes through something that holds no keys.
    """
    for key, value in options.items():
        *path, last = key.split(".")
        try:
            parent = cfg
            for part in path:
                parent = _item(parent, part) if isinstance(parent, list) else parent.get(part, {})
            if isinstance(parent, list):  # mmengine merges here, which fails on plain items
                _item(parent, last)
                parent[int(last)] = value
            else:
                cfg.merge_from_dict({key: value})
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise UserError(
                f"--cfg-options {key}={value!r} does not fit the config: {error}",
                "look at the config's structure; items of lists are numbered, e.g. views.0.size",
            ) from error


def _item(items: list[Any], number: str) -> Any:
    if not number.isdigit() or int(number) >= len(items):
        raise IndexError(f"'{number}' is below a list numbered 0 to {len(items) - 1}")
    return items[int(number)]


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
    for key, value in cfg.items():
        if key.startswith("_"):
            continue
        _check_known(key, TOP_KEYS, "the config")
        if key == "default_hooks":
            _check_hooks(value)
        else:
            _check_value(value, key)
    check_values(cfg)
    _check_ours(cfg)


def _check_ours(cfg: Config) -> None:
    given = {
        "train_cfg": cfg.train_cfg,
        "optim_wrapper": cfg.optim_wrapper,
        "train_dataloader.sampler": cfg.train_dataloader.get("sampler") or {},
    }
    for key, (ours, remedy) in OURS.items():
        if not isinstance(given[key], dict):
            raise UserError(f"{key} is {given[key]!r}, and no dict.", remedy)
        kind = given[key].get("type", ours)
        found = _resolve(kind, key)
        if not (inspect.isclass(found) and issubclass(found, _resolve(ours, key))):
            raise UserError(f"{key}.type is {kind}, and pretraining needs a {ours}.", remedy)
    defaults = cfg.get("default_hooks") or {}
    hooks = [*(cfg.get("custom_hooks") or []), *defaults.values()]
    kinds = [_resolve(hook["type"], "a hook") for hook in hooks if hook and "type" in hook]
    stopping = any(inspect.isclass(kind) and issubclass(kind, EarlyStoppingHook) for kind in kinds)
    best = defaults.get("checkpoint") or {}
    if stopping or best.get("save_best"):
        what = "EarlyStoppingHook" if stopping else "default_hooks.checkpoint.save_best"
        raise UserError(
            f"{what} waits for a validation, which a pretraining has none of.",
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
    if "type" in value:
        target = _resolve(value["type"], where)
        known = _parameters(target)
        if known is not None:
            known = known | BUILDER_KEYS.get(where.rstrip(".0123456789"), set())
        # What other projects' parts take dicts for, they take out what they please.
        deeper = target.__module__.partition(".")[0] not in OTHER_PROJECTS
    else:
        known = UNTYPED_KEYS.get(where)
    for key, item in value.items():
        if known is not None and key not in ("type", "_scope_", "_delete_"):
            _check_known(key, known, where)
        # Free-form arguments (dist_cfg, view specs) are judged by what reads them.
        if deeper:
            _check_value(item, f"{where}.{key}")


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
    if "." in name:  # of another project, or a Python path
        with redirect_stdout(io.StringIO()):  # mmdet and mmseg print when imported
            found = next(filter(None, (registry.get(name) for registry in _registries())), None)
    else:
        found = known.get(name)
    if found is not None:
        return found
    project = name.partition(".")[0]
    if project in OTHER_PROJECTS:
        raise UserError(
            f"{project} has no '{name}' for {where}, or is not installed.",
            'check the name; mmdet and mmseg come with pip install -e ".[transfer]" '
            "--no-build-isolation",
        )
    raise UserError(
        f"Unknown type '{type_name}' in {where}{did_you_mean(name, known)}.",
        "check the name; types of your own are registered by custom_imports in the config",
    )


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


def use_images(cfg: Config, folder: str | Path) -> None:
    """Puts a folder of images, or of tar shards where there are none, in the place of the data set
    of ``cfg``."""
    dataset = cfg.train_dataloader.dataset
    kept = {key: dataset[key] for key in ("transform", "max_broken") if key in dataset}
    root = Path(folder).expanduser()
    shards = root.is_dir() and not any(images_below(root)) and any(root.rglob("*.tar"))
    kind = "TarShards" if shards else "ImageFolder"
    cfg.train_dataloader.dataset = dict(type=kind, root=str(folder), **kept)


def set_precision(cfg: Config, precision: str) -> None:
    """Writes the precision into the optimizer wrapper of ``cfg``."""
    cfg.optim_wrapper.type = "PrecisionOptimWrapper"
    cfg.optim_wrapper.precision = precision


def set_runtime_defaults(cfg: Config) -> None:
    """Fills in what follows from the machine and not from the recipe."""
    loader = cfg.train_dataloader
    defaults = dict(
        sampler=dict(type="ViewSampler"),
        worker_init_fn=dict(type="obey_parent_only"),
        drop_last=True,
        pin_memory=torch.cuda.is_available(),
    )
    if loader.get("num_workers", 0) > 0:
        defaults.update(persistent_workers=True)
    for key, value in defaults.items():
        loader.setdefault(key, value)
    loader.collate_fn = dict(type="collate_views")  # no other takes samples of plain numbers
    cfg.train_cfg.setdefault("type", "PretrainLoop")
    cfg.optim_wrapper.setdefault("constructor", "TrainableParameters")
    cfg.setdefault("model_wrapper_cfg", dict(type="densessl.PretrainDDP"))
    cfg.setdefault("default_scope", "densessl")
    if not torch.cuda.is_available():
        cfg.setdefault("env_cfg", {})
        cfg.env_cfg.setdefault("dist_cfg", {})
        cfg.env_cfg.dist_cfg.backend = "gloo"
