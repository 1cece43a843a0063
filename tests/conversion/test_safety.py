"""A checkpoint describes its network; nothing that it names is imported or called."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from densessl.checkpoint import load_checkpoint
from densessl.conversion.export import export_checkpoint
from densessl.conversion.source import load_backbone
from densessl.errors import UserError
from densessl.evaluation.features import load_frozen
from densessl.models import ResNet
from densessl.registry import MODELS
from tests.checkpoints import convert, write_checkpoint

R18 = {"type": "ResNet", "depth": 18}
MODULE = """
from torch import nn
from densessl.registry import MODELS

@MODELS.register_module()
class NetOfOnesOwn(nn.Module):
    def __init__(self, width, plan, out_indices=(3,)):
        super().__init__()
        self.layer = nn.Conv2d(3, width, 1)
        self.out_channels = (width,)
    def forward(self, x):
        return (self.layer(x),)
"""


def altered(path: Path, **meta) -> Path:
    """A checkpoint of a ResNet-18 whose ``meta`` says something else."""
    write_checkpoint(path, R18)
    content = torch.load(path)
    content["meta"] |= meta
    torch.save(content, path)
    return path


def mark_with(mark: Path) -> dict:
    return {"type": "subprocess.check_call", "args": ["touch", str(mark)]}


@pytest.mark.parametrize(
    "around",
    [
        lambda evil: evil,
        lambda evil: {"type": "MMBackbone", "model": evil},
        lambda evil: {"type": "MMBackbone", "model": {"type": "mmdet.ResNet", "norm_cfg": evil}},
        lambda evil: {**R18, "plugins": [{"cfg": evil}]},
        lambda evil: {**evil, "_scope_": "densessl"},
    ],
)
def test_what_is_no_network_is_refused_and_not_called(tmp_path, around, capsys):
    mark = tmp_path / "executed"
    file = altered(tmp_path / "evil.pth", architecture=around(mark_with(mark)))
    assert convert.main([str(file), str(tmp_path / "out.pth"), "--to", "mmdet"]) == 2
    assert "'subprocess.check_call', which is no network" in capsys.readouterr().err
    for read in (load_backbone, load_frozen):
        with pytest.raises(UserError, match="nothing was executed"):
            read(file)
    assert not mark.exists()


@pytest.mark.parametrize(
    "kind",
    [
        "antigravity",
        "this",
        "densessl.checkpoint.load_checkpoint",
        "densessl.files.os.system",
        "mmdet.apis.init_detector",
        "torch.hub.load",
        "__main__",
        "mmdet.",
        ".",
        "",
        len,
        7,
    ],
)
def test_names_of_other_things_are_refused_and_not_imported(tmp_path, kind):
    file = altered(tmp_path / "evil.pth", architecture={"type": kind})
    before = {*sys.modules}
    with pytest.raises(UserError):
        load_backbone(file)
    assert not {"antigravity", "this"} & ({*sys.modules} - before)


def test_nor_is_another_project_or_method_imported(tmp_path, monkeypatch):
    (tmp_path / "strange").mkdir()
    for name in ("__init__", "registry"):
        (tmp_path / "strange" / f"{name}.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for architecture in ({"type": "strange.Net"}, {**R18, "_scope_": "strange"}):
        with pytest.raises(UserError, match="no network that is known"):
            load_backbone(altered(tmp_path / "evil.pth", architecture=architecture))
    assert load_frozen(altered(tmp_path / "evil.pth", method="strange.Method")).token
    with pytest.raises(UserError, match="does not say what its backbone is"):
        load_backbone(altered(tmp_path / "evil.pth", architecture="ResNet"))


def test_classes_that_are_there_may_be_named_by_their_path(tmp_path):
    path = f"{ResNet.__module__}.{ResNet.__qualname__}"
    backbone = load_backbone(altered(tmp_path / "own.pth", architecture={**R18, "type": path}))
    assert isinstance(backbone, ResNet)


def test_weights_that_it_began_with_are_not_sought(tmp_path):
    pytest.importorskip("mmdet")
    began = {"init_cfg": {"type": "Pretrained", "checkpoint": "http://nowhere.invalid/a.pth"}}
    model = {"type": "mmdet.ResNet", "depth": 18, "norm_eval": False, "frozen_stages": -1, **began}
    architecture = {"type": "MMBackbone", "model": {**model, "plugins": None}}
    file = write_checkpoint(tmp_path / "mm.pth", architecture)
    assert export_checkpoint(file, tmp_path / "out.pth").passed
    assert "init_cfg" not in load_checkpoint(tmp_path / "out.pth")["meta"]["architecture"]["model"]


def test_a_network_of_ones_own_is_read_once_imported_or_trusted(tmp_path, monkeypatch):
    (tmp_path / "module_of_ones_own.py").write_text(MODULE)
    architecture = {"type": "NetOfOnesOwn", "width": 4, "plan": {"type": "linear"}}
    state = {f"backbone.layer.{k}": v for k, v in nn.Conv2d(3, 4, 1).state_dict().items()}
    meta = {"format": "densessl/1", "architecture": architecture, "imports": ["module_of_ones_own"]}
    file = tmp_path / "own.pth"
    torch.save({"meta": meta, "state_dict": state}, file)
    with pytest.raises(UserError, match="must be imported.*trust"):
        load_backbone(file)
    with pytest.raises(UserError, match="PYTHONPATH"):
        load_backbone(file, trust=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(MODELS, "_module_dict", dict(MODELS.module_dict))
    assert load_backbone(file, trust=True).out_channels == (4,)
    weight = load_backbone(file).layer.weight
    assert torch.equal(weight, state["backbone.layer.weight"])
