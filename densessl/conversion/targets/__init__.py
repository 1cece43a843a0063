"""The frameworks a backbone can be exported to, one file each."""

from importlib import import_module

from densessl.conversion.targets.base import Target
from densessl.errors import UserError
from densessl.suggest import did_you_mean

TARGETS = ("mmdet", "mmseg", "torchvision", "timm", "detectron2")


def get_target(name: str) -> Target:
    """The target of that name; its framework is imported only when it is used.

    Raises:
        UserError: There is no such target.
    """
    if name not in TARGETS:
        raise UserError(
            f"There is no export target '{name}'{did_you_mean(name, TARGETS)}.",
            f"Choose one of {', '.join(TARGETS)}.",
        )
    return import_module(f"densessl.conversion.targets.{name}").TARGET
