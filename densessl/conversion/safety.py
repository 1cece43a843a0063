"""What a checkpoint may name as its network: known networks, and nothing else that would run.

mmengine imports whatever a ``type`` names and calls it, ``os.system`` too.
"""

import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import nn

from densessl.errors import UserError
from densessl.registry import MODELS

PROJECTS = ("densessl", "mmengine", "mmdet", "mmseg", "mmpretrain")
BEGINNINGS = ("init_cfg", "pretrained", "convert_weights")  # with which weights mm's begin


def read_architecture(meta: dict, name: str, trust: bool = False) -> dict:
    """The architecture that a file of ours describes, without the weights that it once began with.

    Args:
        meta: The file's; ``imports`` are the modules of one's own that its config named.
        name: The file's name, for messages.
        trust: Import those modules, and let the architecture name anything.

    Raises:
        UserError: It is no architecture, names what is no known network, or a module is missing.
    """
    architecture = _without_beginnings(meta["architecture"])
    if not isinstance(architecture, dict) or "type" not in architecture:
        raise UserError(f"{name} does not say what its backbone is.", "Use another checkpoint.")
    if trust:
        for module in meta.get("imports", ()):
            _import(module, name)
        return architecture
    strange = next((kind for kind in _names(architecture) if not _is_network(kind)), None)
    if strange is not None:
        raise UserError(
            f"{name} describes its backbone by {strange!r}, which is no network that is known "
            "here. It was refused, and nothing was executed.",
            "If it is of your own making, import its module first, or read it with --trust (from "
            "Python: trust=True) and PYTHONPATH set to the module's folder: what the file names is "
            "then imported and called. Otherwise do not use it.",
        )
    return architecture


def _without_beginnings(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_beginnings(v) for k, v in value.items() if k not in BEGINNINGS}
    if isinstance(value, list | tuple):
        return type(value)(map(_without_beginnings, value))
    return value


def _import(module: str, name: str) -> None:
    try:
        import_module(module)
    except ImportError as error:
        raise UserError(
            f"{name} needs the module {module}, which cannot be imported: {error}.",
            "Set PYTHONPATH to the folder that it is in.",
        ) from error


def _names(value: Any) -> Iterator[Any]:
    """All that stands as a type, and the projects in which types are looked up."""
    if isinstance(value, dict):
        if "type" in value:
            yield value["type"]
        if "_scope_" in value:
            yield f"{value['_scope_']}."
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    for item in value:
        yield from _names(item)


def _is_network(kind: Any) -> bool:
    """Whether mmengine finds a network as ``kind``, or nothing, and imports no other module."""
    if not isinstance(kind, str):
        return False
    place, _, name = kind.rpartition(".")
    if place in PROJECTS:
        return _has(place, name)
    if place:
        found = getattr(sys.modules.get(place), name, None)
        return inspect.isclass(found) and issubclass(found, nn.Module)
    try:
        return bool(name) and (_has("densessl", name) or find_spec(name) is None)
    except ValueError:
        return False


def _has(project: str, name: str) -> bool:
    """Whether a project, or what all share, has a network ``name``; "" is in all."""
    try:
        registry = MODELS if project == "densessl" else import_module(f"{project}.registry").MODELS
        registry.import_from_location()
    except ImportError:  # it is not installed, and nothing in it will be found
        return project != "densessl"
    return name in {"", *registry.module_dict, *MODELS.parent.module_dict}
