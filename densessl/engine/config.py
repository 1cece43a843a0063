"""Configs: finding, loading and completing them."""

import io
from contextlib import redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from densessl.datasets.images import files_below, is_image
from densessl.datasets.shards import is_shard
from densessl.engine.checks import check_config
from densessl.errors import UserError
from densessl.suggest import did_you_mean

SHIPPED = "densessl::"  # before a shipped config's path, as mm's projects have theirs


def config_folder() -> Path:
    """Where the shipped configs are: beside the package, or inside it once installed."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "configs"
    return beside if beside.is_dir() else package / ".mim" / "configs"


def load_config(
    config: str | Path | Config,
    options: dict[str, Any] | None = None,
    images: str | Path | None = None,
    precision: str | None = None,
) -> Config:
    """Loads or copies a config, applies dotted ``options`` and checks every key.

    Args:
        config: A config or its file; a path below the shipped ``configs/`` works from anywhere.
        options: Dotted keys, as ``--cfg-options`` gives them.
        images: A folder that replaces the config's data set; see ``use_images``.
        precision: "auto", "bf16" or "fp32"; None leaves it to the config.

    Raises:
        UserError: If the file does not exist or cannot be read, or a key or type is unknown.
    """
    cfg = deepcopy(config) if isinstance(config, Config) else read_config(config)
    apply_options(cfg, options or {})
    if any(key.startswith("custom_imports") for key in options or {}):
        import_own(cfg)
    _name_types(cfg._cfg_dict)
    for part, kind in (
        ("optim_wrapper", "PrecisionOptimWrapper"),
        ("model_wrapper_cfg", "PretrainDDP"),
    ):
        if isinstance(cfg.get(part), dict):  # so that its keys are checked
            cfg[part].setdefault("type", kind)
    check_config(cfg)
    if images is not None:
        use_images(cfg, images)
    if precision is not None:
        cfg.optim_wrapper.precision = precision
    return cfg


def find_config(path: str | Path, below: str = ".") -> Path:
    """The config file that is meant.

    Args:
        path: The file; a path below the shipped ``configs/`` or the name of a shipped file works
            from anywhere, and after ``densessl::`` is looked for nowhere else.
        below: Folder of the shipped configs in which names are looked up.

    Raises:
        UserError: If there is none.
    """
    only_shipped, folder = str(path).startswith(SHIPPED), config_folder()
    path = Path(str(path).removeprefix(SHIPPED))
    inside = path.parts[1:] if path.parts[:1] == ("configs",) else path.parts
    shipped = {p.name: p for p in (folder / below).rglob("*.py") if "_base_" not in p.parts}
    named = [folder.joinpath(*inside), shipped.get(path.name), shipped.get(f"{path.name}.py")]
    named = named if only_shipped else [path, *named]
    found = next((p for p in named if p is not None and p.is_file()), None)
    if found is None:
        prefix = SHIPPED if only_shipped else ""
        raise UserError(
            f"There is no config {prefix}{path}{did_you_mean(path.stem, shipped)}.",
            f"give the path of a .py file; the shipped ones are in {folder / below}",
        )
    return found


def base_path(path: str, filename: str) -> tuple[str, str | None]:
    """mmengine's way from a ``_base_`` in ``filename`` to its file, for ``densessl::`` too."""
    if not path.startswith(SHIPPED):
        return mm_path(path, filename)
    try:
        return str(find_config(path)), None
    except UserError as error:
        raise UserError(f"In {filename}: {error.problem}", error.remedy) from error


mm_path = Config._get_cfg_path
Config._get_cfg_path = staticmethod(base_path)


def read_config(path: str | Path, below: str = ".") -> Config:
    """Reads a config file without checking its keys.

    Args:
        path: See ``find_config``.
        below: See ``find_config``.

    Raises:
        UserError: If the file does not exist or cannot be read.
    """
    found = find_config(path, below)
    try:
        with redirect_stdout(io.StringIO()):  # mmdet and mmseg print when imported
            return Config.fromfile(found)
    except UserError:  # of a _base_
        raise
    except ImportError as error:
        raise UserError(
            f"The config {found} needs a module that cannot be imported: {error}.",
            'mmdet and mmseg: pip install -e ".[transfer]" --no-build-isolation in the checkout of '
            "densessl; a module of your own: set PYTHONPATH to the folder that it is in",
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
                if not isinstance(parent, dict | list):
                    raise TypeError(f"{part} is {parent!r}, which has no keys")
            if isinstance(parent, list):  # mmengine merges here, which fails on plain items
                _item(parent, last)
                parent[int(last)] = value
            else:
                cfg.merge_from_dict({key: value})
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise UserError(
                f"--cfg-options {key}={value!r} does not fit the config: {error}",
                "look at the config's structure; items of lists are numbered from 0, and a "
                "preset's name is replaced as a whole",
            ) from error


def import_own(cfg: Config) -> None:
    """Imports what ``custom_imports`` names, as reading a file does.

    Raises:
        UserError: If a module cannot be imported.
    """
    try:
        import_modules_from_strings(**cfg.custom_imports)
    except (ImportError, TypeError) as error:
        raise UserError(
            f"custom_imports is {dict(cfg.custom_imports)}: {error}",
            "give dict(imports=[...]), and set PYTHONPATH to the folder that the modules are in",
        ) from error


def _name_types(value: Any) -> None:
    """Writes each class that stands as a ``type`` as its path: checkpoints hold the config and no
    code."""
    if isinstance(value, dict):
        kind = value.get("type")
        if callable(kind) and "<locals>" not in kind.__qualname__:
            value["type"] = f"{kind.__module__}.{kind.__qualname__}"
    items = value.values() if isinstance(value, dict) else value
    for item in items:
        if isinstance(item, dict | list | tuple):
            _name_types(item)


def _item(items: list[Any], number: str) -> Any:
    if not number.isdigit() or int(number) >= len(items):
        raise IndexError(f"'{number}' is below a list numbered 0 to {len(items) - 1}")
    return items[int(number)]


def use_images(cfg: Config, folder: str | Path) -> None:
    """Puts a folder of images, or of tar shards where there are none, in the place of the data set
    of ``cfg``."""
    dataset = cfg.train_dataloader.dataset
    kept = {key: dataset[key] for key in ("transform", "max_broken") if key in dataset}
    root = Path(folder).expanduser()
    imageless = root.is_dir() and not any(files_below(root, is_image))
    kind = "TarShards" if imageless and any(files_below(root, is_shard)) else "ImageFolder"
    cfg.train_dataloader.dataset = dict(type=kind, root=str(folder), **kept)


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
    wrapper = cfg.get("model_wrapper_cfg") or dict(type="PretrainDDP")
    if isinstance(wrapper["type"], str) and "." not in wrapper["type"]:
        wrapper["type"] = f"densessl.{wrapper['type']}"  # mmengine looks in its own registry only
    cfg.model_wrapper_cfg = wrapper
    cfg.setdefault("default_scope", "densessl")
    if not torch.cuda.is_available():
        cfg.setdefault("env_cfg", {})
        cfg.env_cfg.setdefault("dist_cfg", {})
        cfg.env_cfg.dist_cfg.backend = "gloo"
