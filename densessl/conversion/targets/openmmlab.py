"""What mmdet and mmseg share: their backbones, their names, their way of loading, their chatter."""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.config import ConfigDict
from torch import nn

from densessl.conversion.architecture import is_mm, natural_target
from densessl.conversion.safety import PROJECTS
from densessl.conversion.targets.base import State, Target, missing_package, numbers
from densessl.errors import UserError
from densessl.registry import MODELS

NORM_CFGS = {"bn": {"type": "BN"}, "gn": {"type": "GN", "num_groups": 32}}


class OpenMMLabTarget(Target):
    """A ResNet's names are torchvision's, but what torchvision calls bn1 is gn1 if it is GroupNorm.

    Their own backbones keep their names.
    """

    def rename(self, state: State) -> State:
        if "bn1.running_mean" in state:
            return dict(state)
        return {re.sub(r"\bbn(\d)\.", r"gn\1.", name): value for name, value in state.items()}

    def restore(self, state: State) -> State:
        return {re.sub(r"\bgn(\d)\.", r"bn\1.", name): value for name, value in state.items()}

    def prefix(self, architecture: dict) -> str:
        """What the names in the file begin with, for the backbone's ``init_cfg`` to take them."""
        return ""

    def write(self, state: State, meta: dict, path: Path) -> None:
        prefix = self.prefix(meta["architecture"])
        state = {prefix + name: value for name, value in state.items()}
        super().write(state, {**meta, "prefix": prefix}, path)

    def read(self, path: Path) -> tuple[State, dict]:
        state, meta = super().read(path)
        return bare(state, meta), meta

    def forms(self, architecture: dict) -> dict[str, dict]:
        if is_mm(architecture):
            return {"plain": architecture}
        return super().forms(architecture)

    def build(self, architecture: dict, path: Path | None = None) -> nn.Module:
        """Their model, loaded by ``init_cfg`` as their configs do."""
        config = self.config(architecture)
        try:
            models = import_module(f"{self.name}.registry").MODELS
            known = models.get(config["type"]) is not None
        except ImportError as error:
            raise missing_package(self.name, error) from error
        if not known:
            home = architecture["model"]["type"].partition(".")[0]
            raise UserError(
                f"{self.name} has no backbone '{config['type']}'.", f"It is of {home}: take that."
            )
        init = None if path is None else {"type": "Pretrained", "checkpoint": str(path)}
        try:
            model = models.build(ConfigDict(config, init_cfg=init, _scope_=self.name))
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.name}'s {config['type']} does not take what the backbone was made with: "
                f"{error}.",
                f"Export it to {natural_target(architecture)}.",
            ) from error
        if path is not None:
            with _quiet():
                model.init_weights()
        return model

    def config(self, architecture: dict) -> dict:
        """Their config of the backbone, which gives all of its maps.

        Args:
            architecture: One of the values of ``forms``.
        """
        if is_mm(architecture):
            model = architecture["model"]
            home, _, name = model["type"].partition(".")
            # What is of a third project, such as mmpretrain's, is that in their configs too.
            return model | {"type": name if home in ("mmdet", "mmseg") else model["type"]}
        return dict(
            type="ResNet",
            depth=architecture["depth"],
            style="pytorch",
            norm_cfg=NORM_CFGS[architecture["norm"]],
            norm_eval=False,
            frozen_stages=-1,
        )

    def usage(self, path: Path, architecture: dict, inputs: dict) -> str:
        config = self.config(architecture)
        if config.get("norm_cfg") == NORM_CFGS["bn"]:  # their default
            del config["norm_cfg"]
        arguments = ", ".join(f"{key}={_as_code(value)}" for key, value in config.items())
        mean, std = numbers(inputs["mean"]), numbers(inputs["std"])
        is_rgb, is_lab = (inputs["channel_order"] == order for order in ("RGB", "Lab"))
        modules = [*_own_module(architecture), *["densessl.transfer.mm.to_lab"] * is_lab]
        lines = [
            f"backbone=dict({arguments},",
            f'              init_cfg=dict(type="Pretrained", checkpoint="{path}")),',
            f"data_preprocessor=dict(mean={mean}, std={std}, bgr_to_rgb={is_rgb}, ...)",
        ]
        if modules:
            lines.append(f"custom_imports=dict(imports={json.dumps(modules)})")
        if is_lab:
            lines.append('pipelines: dict(type="densessl.ToLab") just before the images are packed')
        return "\n".join(lines)


def bare(state: State, meta: dict) -> State:
    """The tensors of a file, as ``write`` wrote it, without the prefix of their names."""
    return {name.removeprefix(meta.get("prefix", "")): value for name, value in state.items()}


def _own_module(architecture: dict) -> list[str]:
    """The module that registers a backbone of the user's own, which their config must import."""
    if not is_mm(architecture):
        return []
    module = MODELS.get(architecture["model"]["type"]).__module__
    return [] if module.partition(".")[0] in (*PROJECTS, "__main__") else [module]


def _as_code(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Their loader logs a line for every parameter; the coverage table says it shorter."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
