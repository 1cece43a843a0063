"""Checkpoints as pretraining leaves them, and the tool that exports them."""

import importlib.util
from pathlib import Path

import torch

from densessl.models.backbones import build_backbone

TOOL = Path(__file__).parents[1] / "tools" / "convert.py"
spec = importlib.util.spec_from_file_location("convert_tool", TOOL)
convert = importlib.util.module_from_spec(spec)
spec.loader.exec_module(convert)


def random_backbone(architecture: dict, seed: int) -> torch.nn.Module:
    """With BatchNorm statistics and scales that matter."""
    torch.manual_seed(seed)
    backbone = build_backbone(architecture)
    for name, value in backbone.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(std=0.1)
        elif name.endswith(("running_var", "bn1.weight", "bn2.weight")):
            value.uniform_(0.5, 1.5)
        elif name.endswith("num_batches_tracked"):
            value.fill_(7)
    return backbone


def write_checkpoint(path: Path, architecture: dict, teacher: bool = False, change=None) -> Path:
    """A checkpoint as pretraining leaves it; ``change`` edits its state dict."""
    student = random_backbone(architecture, 0).state_dict()
    state = {f"backbone.{name}": value for name, value in student.items()}
    state["head.mlp.0.weight"] = torch.zeros(4, 4)
    if teacher:
        twin = random_backbone(architecture, 1).state_dict()
        state |= {f"teacher.backbone.{name}": value for name, value in twin.items()}
    if change is not None:
        change(state)
    meta = {
        "format": "densessl/1",
        "method": "DenseCL" if teacher else "SimCLR",
        "architecture": architecture,
        "input": {"mean": [1.5, 2.5, 3.5], "std": [4.0, 5.0, 6.0], "channel_order": "RGB"},
        "step": 20,
        "epoch": 1,
    }
    torch.save({"meta": meta, "state_dict": state}, path)
    return path
