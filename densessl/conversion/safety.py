"""What a checkpoint may describe as its backbone: a known one, of known parts and plain values.

mmengine imports whatever a ``type`` names and calls it, ``os.system`` too, and many classes read
files that their arguments name.
"""

import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.registry import Registry
from mmengine.registry import root as mm_root
from torch import nn

from densessl.conversion.architecture import is_mm
from densessl.errors import UserError
from densessl.registry import MODELS

PROJECTS = ("densessl", "mmengine", "mmdet", "mmseg", "mmpretrain")
LIBRARIES = (*PROJECTS, "mmcv", "torch", "torchvision", "timm")
# Modules whose networks read and call nothing that their arguments do not name.
BACKBONES = tuple(f"{project}.models.backbones." for project in PROJECTS)
PARTS = (
    *BACKBONES,
    *(f"{project}.models.{part}." for project in PROJECTS for part in ("layers", "utils")),
    *("torch.nn.", "mmcv.cnn.bricks.", "mmcv.ops.", "mmengine.model.base_module."),
    "mmengine.utils.dl_utils.parrots_wrapper.",  # SyncBN
)
# But for these, which fetch weights or build what they are told to.
UNSAFE = (
    *("mmseg.models.backbones.timm_backbone.", "mmpretrain.models.backbones.timm_backbone."),
    "mmseg.models.backbones.vpd.",
)
BEGINNINGS = ("init_cfg", "pretrained", "convert_weights")  # with which weights mm's begin
DEEPEST = 20


def read_architecture(meta: dict, name: str, trust: bool = False) -> dict:
    """The architecture that a file of ours describes, without the weights that mm's began with.

    Args:
        meta: The file's; ``imports`` are the modules of one's own that its config named.
        name: The file's name, for messages.
        trust: Import those modules, and let the architecture name anything.

    Raises:
        UserError: It is no architecture, holds what is not allowed, or a module is missing.
    """
    architecture = meta["architecture"]
    if not isinstance(architecture, dict) or not isinstance(architecture.get("type"), str):
        raise UserError(f"{name} does not say what its backbone is.", "Use another checkpoint.")
    if is_mm(architecture):
        architecture = {**architecture, "model": _without_beginnings(architecture.get("model"))}
    if trust:
        _import_all(meta.get("imports") or [], architecture, name)
        return architecture
    strange = next(_strange_backbone(architecture), None)
    if strange is not None:
        raise UserError(
            f"{name} describes its backbone by {strange}. It was refused, and nothing was "
            "executed.",
            "If it is of your own making, import its module first, or read it with --trust (from "
            "Python: trust=True) and PYTHONPATH set to the module's folder: what the file names is "
            "then imported and called. Otherwise do not use it.",
        )
    return architecture


def _without_beginnings(value: Any, depth: int = 0) -> Any:
    if depth > DEEPEST:
        return value
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if key not in BEGINNINGS}
        return {key: _without_beginnings(item, depth + 1) for key, item in kept.items()}
    if isinstance(value, list | tuple):
        return type(value)(_without_beginnings(item, depth + 1) for item in value)
    return value


def _import_all(modules: Any, architecture: dict, name: str) -> None:
    """Imports ``modules``; one that fails is missed only where a network is not known without."""
    modules = [modules] if isinstance(modules, str) else modules
    failed: dict[str, Exception] = {}
    for module in modules if isinstance(modules, list | tuple) else ():
        try:
            import_module(module)
        except Exception as error:  # a module of one's own: anything can go wrong in it
            failed[str(module)] = error
    if failed and not all(_found(kind) for kind in _kinds(architecture)):
        module, error = next(iter(failed.items()))
        raise UserError(
            f"{name} needs the module {module}, which cannot be imported: "
            f"{type(error).__name__}: {error}.",
            "Set PYTHONPATH to the folder that it is in.",
        ) from error


def _kinds(architecture: dict) -> list[Any]:
    """The backbone's type, and that of what ``MMBackbone`` wraps."""
    model = architecture.get("model") if is_mm(architecture) else None
    return [architecture["type"], *([model.get("type")] if isinstance(model, dict) else [])]


def _strange_backbone(architecture: dict) -> Iterator[str]:
    for kind in _kinds(architecture):
        found = _found(kind)
        if not found or not all(_is_of(BACKBONES, each) or _is_own(each) for each in found):
            yield f"{kind!r}, which is no network that is known here"
    yield from _strange(architecture)


def _strange(value: Any, depth: int = 0) -> Iterator[str]:
    """What is neither plain nor a known part, in words."""
    if depth > DEEPEST:
        yield "dicts in dicts without an end"
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "type" and isinstance(item, str):
                if not _is_part(item):
                    yield f"{item!r}, which is no network that is known here"
            elif key == "_scope_":
                yield f"the scope {item!r}, with which it would be no network that is known here"
            else:
                yield from _strange(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strange(item, depth + 1)
    elif isinstance(value, str):
        if _names_a_file(value):
            yield f"{value!r}, which names a file"
        elif value and not _is_part(value):  # parts build more by name than what stands as a type
            yield f"{value!r}, which names code"
    elif not isinstance(value, int | float | None):
        yield f"a {type(value).__name__}"


def _is_part(kind: str) -> bool:
    """Whether a part of a backbone may be what ``kind`` names, or it is a word that names nothing.

    mmengine would import what it does not know; a module that is there already it cannot call.
    """
    found = _found(kind)
    if found:
        return all(_is_of(PARTS, each) or _is_own(each) for each in found)
    first, dot, _ = kind.partition(".")
    try:
        return (not dot and kind in sys.modules) or find_spec(first) is None
    except ValueError:
        return False


def _names_a_file(text: str) -> bool:
    try:
        return "://" in text or "::" in text or text.startswith("~") or Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or not of its characters
        return False


def _is_of(places: tuple[str, ...], found: Any) -> bool:
    module = f"{getattr(found, '__module__', '')}."
    network = inspect.isclass(found) and issubclass(found, nn.Module)
    return network and module.startswith(places) and not module.startswith(UNSAFE)


def _is_own(found: Any) -> bool:
    """Whether it is a network of the user's own, imported already and not installed."""
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        return False
    file = getattr(sys.modules.get(found.__module__), "__file__", None) or ""
    installed = {"site-packages", "dist-packages"} & {*Path(file).parts}
    return not installed and found.__module__.partition(".")[0] not in LIBRARIES


def _found(kind: Any) -> list[Any]:
    """All that mmengine could find as ``kind``; only installed parts are imported for it."""
    if not isinstance(kind, str):
        return []
    scope, _, rest = kind.partition(".")
    if not rest:
        MODELS.import_from_location()
        return [r.module_dict[kind] for r in _registries() if kind in r.module_dict]
    if scope in PROJECTS:
        _fill(scope)
    place, _, name = kind.rpartition(".")
    if f"{place}.".startswith(PARTS) and place not in sys.modules:
        try:
            import_module(place)
        except ImportError:
            pass
    at_path = getattr(sys.modules.get(place), name, None)
    registered = [
        r.module_dict[rest] for r in _registries() if r.scope == scope and rest in r.module_dict
    ]
    return registered + ([] if at_path is None else [at_path])


def _fill(project: str) -> None:
    """Registers the networks of an mm project, where it is installed."""
    try:
        import_module(f"{project}.registry").MODELS.import_from_location()
    except ImportError:
        pass


def _registries(among: list[Registry] | None = None) -> Iterator[Registry]:
    """mmengine's registries and those of the projects that are imported."""
    if among is None:
        among = [value for value in vars(mm_root).values() if isinstance(value, Registry)]
    for registry in among:
        yield registry
        yield from _registries(list(registry.children.values()))
