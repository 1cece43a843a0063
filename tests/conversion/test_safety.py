"""A checkpoint describes its network; nothing that it names is imported or called."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from densessl.checkpoint import load_checkpoint
from densessl.conversion.export import export_checkpoint
from densessl.conversion.safety import read_architecture
from densessl.conversion.source import load_backbone
from densessl.errors import UserError
from densessl.evaluation.features import load_frozen
from densessl.models import ResNet, TimmBackbone
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


def mm(kind: str, **options) -> dict:
    return {"type": "MMBackbone", "model": {"type": kind, **options}}


@pytest.mark.parametrize(
    ("architecture", "named"),
    [
        # Its constructor calls eval on what a second part is given.
        (mm("mmdet.StrongSORT", cmc={"type": "CameraMotionCompensation"}), "mmdet.StrongSORT"),
        # Reads a file, a config, an address.
        (mm("mmdet.LAD", teacher_ckpt="http://nowhere.invalid/a"), "mmdet.LAD"),
        (mm("mmseg.TIMMBackbone", model_name="resnet18"), "mmseg.TIMMBackbone"),
        (mm("mmseg.VPD", class_embed_path="x"), "mmseg.VPD"),
        ({"type": "TimmBackbone", "name": "resnet18", "checkpoint_path": "FILE"}, "names a file"),
        (mm("mmdet.ResNet", plugins=[{"cfg": {"type": "mmdet.LAD"}}]), "mmdet.LAD"),
        (mm("mmdet.ResNet", norm_cfg={"type": "SGD"}), "SGD"),
        (mm("mmdet.ResNet", norm_cfg={"_scope_": "strange", "type": "BN"}), "scope 'strange'"),
        (mm("mmdet.ResNet", note="torchvision://resnet50"), "names a file"),
        # Built as a type, though it does not stand as one.
        (
            mm("mmdet.ResNet", act_cfg={"type": "ConvModule", "padding_mode": "os.system"}),
            "os.system",
        ),
        (mm("mmdet.ResNet", act_cfg={"type": "PatchEmbed", "conv_type": "this"}), "'this'.*code"),
        (mm("mmdet.ResNet", act_cfg={"type": "MMFullyShardedDataParallel"}), "MMFully"),
        (mm("mmdet.ResNet", strides=np.array([1, 2, 2, 2])), "a ndarray"),
        ({"type": "DenseCL", "backbone": R18}, "DenseCL"),
        ({"type": "torch.nn.Linear", "in_features": 1, "out_features": 1}, "torch.nn.Linear"),
    ],
)
def test_what_reads_or_runs_something_is_refused(tmp_path, architecture, named):
    pytest.importorskip("mmdet")
    (tmp_path / "weights.pth").write_bytes(b"")
    for place in (architecture, architecture.get("model", {})):
        place.update(
            {k: str(tmp_path / "weights.pth") for k, v in place.items() if str(v) == "FILE"}
        )
    with pytest.raises(UserError, match=f"{named}.*nothing was executed"):
        load_backbone(altered(tmp_path / "evil.pth", architecture=architecture))


def test_a_description_without_an_end_is_refused(tmp_path):
    endless = mm("mmdet.ResNet")
    endless["model"]["plugins"] = [endless]
    with pytest.raises(UserError, match="without an end"):
        load_backbone(altered(tmp_path / "evil.pth", architecture=endless))


@pytest.mark.parametrize(
    "architecture",
    [R18 | {"depth": [18]}, {"type": "TimmBackbone", "name": 5}, R18 | {"wings": 2}],
)
def test_what_cannot_be_built_is_one_message(tmp_path, architecture):
    with pytest.raises(UserError) as error:
        load_backbone(altered(tmp_path / "bad.pth", architecture=architecture))
    assert "trust" not in error.value.remedy


@pytest.mark.parametrize(
    "options",
    [
        dict(norm_cfg={"type": "SyncBN", "requires_grad": True}, style="pytorch"),
        dict(conv_cfg={"type": "DCNv2"}, norm_cfg={"type": "GN", "num_groups": 32}),
        dict(dcn={"type": "DCN", "deform_groups": 1, "fallback_on_stride": False}),
        dict(plugins=[{"cfg": {"type": "ContextBlock", "ratio": 0.1}, "position": "after_conv3"}]),
        dict(
            act_cfg={"type": "GELU"},
            mode="bilinear",
            arch="regnetx_3.2gf",
            empty="",
            order="random",
        ),
    ],
)
def test_what_mms_configs_usually_say_is_read(options):
    pytest.importorskip("mmdet")
    architecture = mm("mmdet.ResNet", depth=50, **options)
    assert read_architecture(dict(architecture=architecture), "a.pth") == architecture


def test_a_class_of_an_mm_project_may_be_named_by_its_path(tmp_path):
    pytest.importorskip("mmdet")
    kind = "mmdet.models.backbones.resnet.ResNet"
    file = write_checkpoint(tmp_path / "mm.pth", mm(kind, depth=18, norm_eval=False))
    assert load_backbone(file).out_channels == (512,)


def test_timm_is_given_no_file_to_read():
    with pytest.raises(UserError, match="model.backbone.checkpoint_path is not for TimmBackbone"):
        TimmBackbone("resnet18", checkpoint_path="a.pth")


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
    with pytest.raises(UserError, match="(?s)'NetOfOnesOwn', which is no network.*import its"):
        load_backbone(file)
    with pytest.raises(UserError, match="PYTHONPATH"):
        load_backbone(file, trust=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(MODELS, "_module_dict", dict(MODELS.module_dict))
    assert load_backbone(file, trust=True).out_channels == (4,)
    weight = load_backbone(file).layer.weight
    assert torch.equal(weight, state["backbone.layer.weight"])
    for plan in ({"type": "random"}, {"type": 2, "pretrained": "nothing"}):  # its own matter
        content = {"meta": meta | {"architecture": architecture | {"plan": plan}}}
        torch.save({**content, "state_dict": state}, file)
        assert torch.equal(load_backbone(file).layer.weight, weight)


def test_trust_imports_what_is_there_and_misses_only_what_is_needed(tmp_path):
    (tmp_path / "broken.py").write_text("this is no Python")
    for imports in (["not_there"], "not_there", None, [5], ["not_there", "json"]):
        file = altered(tmp_path / "a.pth", imports=imports)
        assert isinstance(load_backbone(file, trust=True), ResNet)
    file = altered(tmp_path / "a.pth", imports=["not_there"], architecture={"type": "NetOfNobody"})
    with pytest.raises(UserError, match="needs the module not_there"):
        load_backbone(file, trust=True)
