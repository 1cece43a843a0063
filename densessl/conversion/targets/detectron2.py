"""detectron2's ResNet: a pickle with its own names.

detectron2 cannot be installed beside this project's torch, so the file is proven by reading it
back, mapping its names to ours and comparing the maps of the two nets.
"""

import pickle
import re
from pathlib import Path

import numpy as np
import torch
from torch import nn

from densessl.conversion.targets.base import State, Target, numbers
from densessl.errors import UserError
from densessl.files import open_atomically
from densessl.models.backbones import build_backbone


class Detectron2(Target):
    """``build_resnet_backbone``, RGB input, ``STRIDE_IN_1X1: False``."""

    name = "detectron2"
    theirs = "the file read back, its names mapped to ours"
    # detectron2 decides by the suffix how to read a file.
    suffixes = (".pkl",)

    def build(self, architecture: dict, path: Path | None = None) -> nn.Module:
        model = build_backbone({**architecture, "out_indices": (0, 1, 2, 3)})
        if path is not None:
            model.load_state_dict(self.restore(self.read(path)[0]))
        return model

    def expected(self, architecture: dict) -> State:
        return self.rename(self.build(architecture).state_dict())

    def loaded(self, model: nn.Module) -> State:
        return self.rename(model.state_dict())

    def rename(self, state: State) -> State:
        return {_to_detectron2(name): tensor for name, tensor in state.items()}

    def restore(self, state: State) -> State:
        return {_from_detectron2(name): tensor for name, tensor in state.items()}

    def write(self, state: State, meta: dict, path: Path) -> None:
        content = {
            "model": {name: tensor.cpu().numpy() for name, tensor in state.items()},
            "__author__": "densessl",
            "matching_heuristics": True,
            "densessl": meta,
        }
        with open_atomically(path) as file:
            _PortablePickler(file, protocol=4).dump(content)

    def read(self, path: Path) -> tuple[State, dict]:
        try:
            with open(path, "rb") as file:
                content = _NumpyUnpickler(file).load()
        except (OSError, EOFError, pickle.UnpicklingError, ValueError) as error:
            raise UserError(
                f"{path} is no file that densessl exported to detectron2: {error}.",
                "Export it again with tools/convert.py --to detectron2.",
            ) from error
        # A copy of each array: torch warns about arrays that it may not write to.
        state = {name: torch.from_numpy(np.array(a)) for name, a in content["model"].items()}
        return state, content["densessl"]

    def usage(self, path: Path, architecture: dict, inputs: dict) -> str:
        depth = architecture["depth"]
        # detectron2's default of 256 is for bottlenecks.
        narrow = ", RES2_OUT_CHANNELS: 64" if depth < 50 else ""
        order = inputs["channel_order"]
        if order == "Lab":  # no format of detectron2's
            order = "RGB  # to be made Lab by a mapper of yours, see densessl.transforms.lab"
        norm = "GN" if architecture["norm"] == "gn" else "SyncBN"  # detectron2's own is frozen
        return (
            f"MODEL:\n  WEIGHTS: {path}\n  BACKBONE: {{FREEZE_AT: 0}}\n"
            f"  PIXEL_MEAN: {numbers(inputs['mean'])}\n  PIXEL_STD: {numbers(inputs['std'])}\n"
            f"  RESNETS: {{DEPTH: {depth}{narrow}, NORM: {norm}, STRIDE_IN_1X1: False}}\n"
            f"INPUT:\n  FORMAT: {order}"
        )


BYTEARRAY = ("builtins", "bytearray")


class _PortablePickler(pickle.Pickler):
    """Writes arrays so that any numpy reads them: numpy 2 names a module that numpy 1 lacks."""

    def reducer_override(self, value: object):
        if isinstance(value, np.ndarray):
            # A bytearray, so that what is read can be written to.
            return np.ndarray, (value.shape, value.dtype.str, bytearray(value.tobytes()))
        return NotImplemented


class _NumpyUnpickler(pickle.Unpickler):
    """Reads plain types and numpy arrays, nothing else."""

    def find_class(self, module: str, name: str):
        known = ("ndarray", "dtype", "_reconstruct", "scalar")
        if module.startswith("numpy") and name in known or (module, name) == BYTEARRAY:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of weights")


def _to_detectron2(name: str) -> str:
    name = re.sub(r"\bbn(\d)\.", r"conv\1.norm.", name)
    name = name.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
    if match := re.match(r"layer(\d)\.", name):
        return f"res{int(match[1]) + 1}.{name[match.end() :]}"
    return f"stem.{name}"


def _from_detectron2(name: str) -> str:
    name = re.sub(r"\bconv(\d)\.norm\.", r"bn\1.", name)
    name = name.replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.")
    if match := re.match(r"res(\d)\.", name):
        return f"layer{int(match[1]) - 1}.{name[match.end() :]}"
    return name.removeprefix("stem.")


TARGET = Detectron2()
