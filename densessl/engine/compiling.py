"""torch.compile where it pays: networks and augmentation, in place: checkpoints keep their keys."""

import logging
from typing import Any

from mmengine.logging import print_log
from torch import nn

from densessl.errors import UserError
from densessl.models.backbones import SplitBackbone
from densessl.models.methods.base import Method
from densessl.models.preprocessor import BatchedAugmentation
from densessl.models.teacher import Teacher

# They are never called themselves, but in parts.
_HOLDERS = (Method, Teacher, SplitBackbone, nn.ModuleList, nn.ModuleDict)


def networks(module: nn.Module) -> list[nn.Module]:
    """The largest parts of a method that are plain networks: backbone, heads and their twins.

    A module that is no method is one network itself.
    """
    if not isinstance(module, _HOLDERS):
        return [module] if next(module.parameters(), None) is not None else []
    return [part for child in module.children() for part in networks(child)]


def compile_networks(module: nn.Module, options: bool | dict[str, Any] | None) -> None:
    """Compiles the networks of ``module`` in place, each by itself, and its augmentation.

    Args:
        module: A method or a network.
        options: What the config's ``compile`` says: True, or arguments of ``torch.compile``; False
            and None do nothing.

    Raises:
        UserError: Together with gradient checkpointing, which torch.compile does not take.
    """
    if options is None or options is False:
        return
    if any(getattr(part, "with_cp", False) for part in module.modules()):
        raise UserError(
            "compile=True does not go with model.backbone.with_cp=True.", "leave one of them out"
        )
    options = {} if options is True else options
    for network in networks(module):
        if any(isinstance(part, nn.SyncBatchNorm) for part in network.modules()):
            print_log(
                f"a {type(network).__name__} is not compiled: SyncBatchNorm asks the device for a "
                "value in every layer, where a compiled graph ends",
                "current",
                logging.WARNING,
            )
        else:
            network.compile(**options)
    for part in module.modules():
        if isinstance(part, BatchedAugmentation):
            part.compile(**{"dynamic": False, **options})  # few sizes, each for a long time
