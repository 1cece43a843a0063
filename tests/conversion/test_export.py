"""Exported files, checked in the targets' own models, through the tool as a user calls it."""

import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision

from densessl.conversion.architecture import natural_target
from densessl.conversion.coverage import compare_state
from densessl.conversion.export import export_checkpoint, verify
from densessl.conversion.source import load_backbone
from densessl.conversion.targets import TARGETS, get_target
from densessl.errors import UserError
from densessl.models.backbones import build_backbone
from tests.checkpoints import TOOL, convert, random_backbone, write_checkpoint


def student_state(path: Path) -> dict[str, torch.Tensor]:
    state = torch.load(path)["state_dict"]
    prefix = "backbone."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def suffix(target: str) -> str:
    return get_target(target).suffixes[0]


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("target", TARGETS)
def test_resnet_to_every_target(target, depth, checkpoints, tmp_path, capsys):
    out = tmp_path / f"out{suffix(target)}"
    assert convert.main([str(checkpoints[depth]), str(out), "--to", target]) == 0
    text = capsys.readouterr().out
    assert {18: "120/120 tensors", 50: "318/318 tensors"}[depth] in text
    assert "Everything matched" in text
    assert "[1.5, 2.5, 3.5]" in text
    assert ("pretrained=None,\n" in text) == (target == "mmseg")
    assert ("BACKBONE: {FREEZE_AT: 0}" in text) == (target == "detectron2") == ("SyncBN" in text)
    forms = 2 if target == "mmseg" and depth == 50 else 1
    assert sum(text.count(f" {stage} ") for stage in ("C2", "C3", "C4", "C5")) == 4 * forms
    assert [file.name for file in tmp_path.iterdir()] == [out.name]

    weights = student_state(checkpoints[depth])
    if target == "detectron2":
        assert b"numpy._core" not in out.read_bytes()  # which numpy 1 does not have
        with open(out, "rb") as file:
            content = pickle.load(file)
        assert content["matching_heuristics"] is True and content["__author__"]
        ours = {
            "stem.conv1.weight": "conv1.weight",
            "stem.conv1.norm.running_mean": "bn1.running_mean",
            "res2.1.conv2.weight": "layer1.1.conv2.weight",
            "res3.0.shortcut.weight": "layer2.0.downsample.0.weight",
            "res3.0.shortcut.norm.running_var": "layer2.0.downsample.1.running_var",
            "res5.1.conv2.norm.bias": "layer4.1.bn2.bias",
        }
        for theirs, name in ours.items():
            assert np.array_equal(content["model"][theirs], weights[name].numpy()), theirs
        assert len(content["model"]) == len(weights)
        return
    exported = torch.load(out, weights_only=True)
    assert exported["state_dict"].keys() == weights.keys()
    assert all(torch.equal(exported["state_dict"][name], weights[name]) for name in weights)
    meta = exported["meta"]
    assert (meta["format"], meta["to"], meta["which"]) == ("densessl-export/1", target, "student")
    assert meta["input"]["mean"] == [1.5, 2.5, 3.5] and meta["source"] == f"r{depth}.pth"


def test_detectron2_is_told_no_format_that_it_lacks():
    inputs = dict(mean=[1.5, 2.5, 3.5], std=[4.0, 5.0, 6.0], channel_order="Lab")
    target = get_target("detectron2")
    (architecture,) = target.forms({"type": "ResNet", "depth": 50}).values()
    text = target.usage(Path("a.pkl"), architecture, inputs)
    assert text.endswith(
        "FORMAT: RGB  # to be made Lab by a mapper of yours, see densessl.transforms.lab"
    )


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("name", TARGETS)
def test_the_lines_to_use_a_file_with_name_its_net_and_its_input(name, depth, order):
    target = get_target(name)
    inputs = dict(mean=[1.5, 2.5, 3.5], std=[4.0, 5.0, 6.0], channel_order=order)
    (architecture, *_) = target.forms({"type": "ResNet", "depth": depth}).values()
    text = target.usage(Path("a.pth"), architecture, inputs)
    assert "a.pth" in text and "[1.5, 2.5, 3.5]" in text and "[4.0, 5.0, 6.0]" in text
    if name in ("mmdet", "mmseg"):  # all of it is trained, BatchNorm too
        for words in (f"depth={depth}", 'style="pytorch"', "norm_eval=False", "frozen_stages=-1"):
            assert words in text
        assert f"bgr_to_rgb={order == 'RGB'}" in text
    elif name == "detectron2":
        assert f"DEPTH: {depth}" in text and "STRIDE_IN_1X1: False" in text
        assert f"FORMAT: {order}" in text and ("RES2_OUT_CHANNELS: 64" in text) == (depth == 18)
    else:
        assert f"resnet{depth}" in text and f"input: {order} in 0..255" in text


@pytest.mark.parametrize("framework", ["mmdet", "mmseg"])
def test_file_drops_into_init_cfg(framework, checkpoints, exported):
    """Built from a config through their registry, and compared with plain torchvision."""
    registry = importlib.import_module(f"{framework}.registry").MODELS
    importlib.import_module(f"{framework}.models")
    model = registry.build(
        {
            "type": f"{framework}.ResNet",
            "depth": 18,
            "out_indices": (3,),
            "init_cfg": {"type": "Pretrained", "checkpoint": str(exported)},
        }
    )
    model.init_weights()
    model.eval()
    reference = torchvision.models.resnet18()
    reference.load_state_dict(student_state(checkpoints[18]), strict=False)
    reference.fc = reference.avgpool = torch.nn.Identity()
    images = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        theirs, ours = model(images)[0].flatten(1), reference.eval()(images)
    assert (theirs - ours).abs().max() <= 1e-5 * ours.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_a_resnet_with_group_norm_to_every_target(target, tmp_path, capsys):
    architecture = {"type": "ResNet", "depth": 18, "norm": "gn"}
    src, out = write_checkpoint(tmp_path / "src.pth", architecture), tmp_path / f"o{suffix(target)}"
    assert convert.main([str(src), str(out), "--to", target]) == 0
    text = capsys.readouterr().out
    assert "ResNet-18 with norm gn" in text and "60/60 tensors" in text
    said = {"torchvision": "GroupNorm, 32", "timm": "groupnorm", "detectron2": "NORM: GN"}
    assert said.get(target, "norm_cfg={'type': 'GN', 'num_groups': 32}") in text
    assert verify(out, src).passed
    if out.suffix == ".pth":  # an exported file is a source again, whatever its names are
        weights, images = student_state(src), torch.randn(1, 3, 64, 64)
        again = load_backbone(out)
        assert torch.equal(again.state_dict()["bn1.weight"], weights["bn1.weight"])
        assert torch.equal(again(images)[0], load_backbone(src)(images)[0])


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 50])
def test_networks_side_by_side_become_one(depth, tmp_path, capsys):
    architecture = {"type": "SplitResNet", "depth": depth, "width": 0.5}

    def on_lab(path):
        checkpoint = torch.load(path)
        checkpoint["meta"]["input"]["channel_order"] = "Lab"
        torch.save(checkpoint, path)
        return path

    src, out = on_lab(write_checkpoint(tmp_path / "src.pth", architecture)), tmp_path / "out.pth"
    assert convert.main([str(src), str(out), "--to", "mmdet"]) == 0
    text = capsys.readouterr().out
    assert f"2 networks side by side became one ResNet-{depth}" in text
    assert "Its input is Lab" in text
    assert "bgr_to_rgb=False" in text and 'dict(type="densessl.ToLab")' in text
    assert verify(out, src).passed
    images, stages = torch.randn(2, 3, 64, 64, dtype=torch.float64), (0, 1, 2, 3)
    apart = load_backbone(src, out_indices=stages).eval().double()
    together = load_backbone(out, out_indices=stages).eval().double()
    assert type(apart).__name__ == "SplitResNet" and type(together).__name__ == "ResNet"
    for one, other in zip(together(images), apart(images), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
def test_networks_that_do_not_make_one_resnet_are_not_exported(tmp_path, capsys):
    architecture = {"type": "SplitResNet", "depth": 18, "width": 0.25}
    src = write_checkpoint(tmp_path / "src.pth", architecture)
    assert convert.main([str(src), str(tmp_path / "out.pth"), "--to", "mmdet"]) != 0
    assert "2 networks of width 0.25 do not make one ResNet" in capsys.readouterr().err


def test_a_norm_that_a_resnet_does_not_have_is_refused():
    with pytest.raises(UserError, match="model.backbone.norm is 'gm'"):
        build_backbone({"type": "ResNet", "depth": 18, "norm": "gm"})


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [
        {"type": "TimmBackbone", "name": "convnext_atto"},
        {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "img_size": 32},
    ],
    ids=lambda a: a["name"],
)
def test_timm_backbone(architecture, tmp_path, capsys):
    src, out = write_checkpoint(tmp_path / "src.pth", architecture), tmp_path / "out.pth"
    assert convert.main([str(src), str(out), "--to", "timm"]) == 0
    name, options = architecture["name"], {k: v for k, v in architecture.items() if k == "img_size"}
    model = timm.create_model(name, num_classes=0, checkpoint_path=str(out), **options)
    for key, value in student_state(src).items():
        assert torch.equal(model.state_dict()[key.removeprefix("model.")], value)
    capsys.readouterr()
    for target in ("mmdet", "mmseg", "torchvision", "detectron2"):
        arguments = [str(src), str(tmp_path / f"no{suffix(target)}"), "--to", target]
        assert convert.main(arguments) == 2
        message = capsys.readouterr().err
        assert name in message and "ResNet-18, 34, 50 and 101" in message and "timm" in message


@pytest.mark.slow
def test_timm_resnet_to_mmdet_only_if_plain(tmp_path):
    plain = {"type": "TimmBackbone", "name": "resnet18"}
    src = write_checkpoint(tmp_path / "plain.pth", plain)
    assert export_checkpoint(src, tmp_path / "out.pth", to="mmdet").passed
    # The same names, another function: nothing but the option shows it.
    other = write_checkpoint(tmp_path / "other.pth", {**plain, "output_stride": 16})
    with pytest.raises(UserError, match="no backbone"):
        export_checkpoint(other, tmp_path / "out2.pth", to="mmdet")


@pytest.mark.slow
def test_teacher(checkpoints, tmp_path, capsys):
    out = tmp_path / "teacher.pth"
    assert (
        convert.main([str(checkpoints[18]), str(out), "--to", "torchvision", "--which", "teacher"])
        == 0
    )
    twin = random_backbone({"type": "ResNet", "depth": 18}, 1).state_dict()
    exported = torch.load(out)["state_dict"]
    assert all(torch.equal(exported[name], twin[name]) for name in twin)
    # An exported file is a source again, of what it holds.
    with pytest.raises(UserError, match="holds no student.*exported"):
        load_backbone(out)
    capsys.readouterr()
    arguments = [str(checkpoints[50]), str(tmp_path / "x.pth"), "--to", "timm", "--which"]
    assert convert.main([*arguments, "teacher"]) == 2
    message = capsys.readouterr().err
    assert "no teacher (SimCLR has none); it holds the student" in message
    assert convert.main([*arguments, "both"]) == 2


def test_user_errors(checkpoints, tmp_path, capsys):
    src, out = str(checkpoints[18]), tmp_path / "out.pth"
    out.write_text("precious")
    assert convert.main([src, str(out), "--to", "mmdet"]) == 2
    assert "exists already" in capsys.readouterr().err and out.read_text() == "precious"
    assert convert.main([src, str(tmp_path / "a.pth"), "--to", "mmdett"]) == 2
    assert "did you mean 'mmdet'" in capsys.readouterr().err
    assert convert.main([src, str(tmp_path / "a.pth"), "--to", "detectron2"]) == 2
    assert ".pkl" in capsys.readouterr().err
    assert convert.main([src, str(tmp_path / "a.npz"), "--to", "timm"]) == 2
    assert ".pth" in capsys.readouterr().err
    assert convert.main([src + "x", str(tmp_path / "a.pth"), "--to", "timm"]) == 2
    assert "r18.pth" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        convert.main([src, str(out / "below.pth"), "--to", "mmdet"])
    assert "is a file, not a folder" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["out.pth"]


class MakeFolder:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


@pytest.mark.slow
def test_code_needs_trust(checkpoints, tmp_path, capsys):
    mark, src = tmp_path / "executed", tmp_path / "src.pth"
    content = torch.load(checkpoints[18])
    content["extra"] = MakeFolder(mark)
    torch.save(content, src)
    arguments = [str(src), str(tmp_path / "out.pth"), "--to", "torchvision"]
    assert convert.main(arguments) == 2
    message = capsys.readouterr().err
    assert "nothing in it was executed" in message and "--trust" in message
    assert not mark.exists()
    assert convert.main([*arguments, "--trust"]) == 0
    assert mark.exists()


@pytest.mark.slow
def test_import_and_export(tmp_path, capsys):
    """Another project's checkpoint goes straight to mmseg."""
    state = torchvision.models.resnet18().state_dict()
    content = {"state_dict": {f"module.encoder_q.{name}": v for name, v in state.items()}}
    torch.save(content, tmp_path / "moco.pth.tar")
    arguments = [str(tmp_path / "moco.pth.tar"), str(tmp_path / "out.pth"), "--to", "mmseg"]
    assert convert.main(arguments) == 0
    text = capsys.readouterr().out
    assert "MoCo: names beginning 'module.encoder_q.' under state_dict" in text
    assert "fc.weight, fc.bias" in text


@pytest.mark.slow
def test_load_backbone(checkpoints):
    backbone = load_backbone(checkpoints[18]).eval()
    assert len(backbone(torch.zeros(1, 3, 32, 32))) == 1
    pyramid = load_backbone(checkpoints[18], out_indices=(1, 3)).eval()
    images = torch.randn(1, 3, 64, 64)
    reference = random_backbone({"type": "ResNet", "depth": 18}, 0).eval()
    with torch.no_grad():
        assert torch.equal(pyramid(images)[1], reference(images)[0])
        assert pyramid(images)[0].shape == (1, 128, 8, 8)


@pytest.mark.parametrize(
    ("target", "architecture"),
    [
        ("mmdet", dict(type="ResNet", depth=18)),
        ("mmdet", dict(type="SplitResNet")),
        ("mmdet", dict(type="densessl.models.backbones.resnet.ResNet", depth=18)),
        ("mmdet", dict(type="TimmBackbone", name="resnet50")),
        ("timm", dict(type="TimmBackbone", name="convnext_tiny")),
        ("mmdet", dict(type="MMBackbone", model=dict(type="mmdet.SwinTransformer"))),
        ("mmseg", dict(type="MMBackbone", model=dict(type="mmseg.MixVisionTransformer"))),
        (None, dict(type="NetOfOnesOwn")),
    ],
)
def test_the_advice_after_training_is_a_target_that_takes_it(target, architecture):
    assert natural_target(architecture) == target


def test_a_missing_framework_is_told_how_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mmdet.registry", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[transfer\]" --no-build-isolation'):
        get_target("mmdet").build({"type": "ResNet", "depth": 18, "norm": "bn"})


def test_coverage_counts_and_names():
    expected = {"a.weight": (3, 4), "a.running_mean": (3,), "b.norm.weight": (2,), "c": ()}
    given = {"a.weight": torch.zeros(3, 4), "a.running_mean": torch.zeros(4), "d": torch.zeros(1)}
    coverage = compare_state(expected, given, added_by_design=("b.norm.*", "a.weight"))
    assert coverage.matched == {"a.weight": (3, 4)}
    assert coverage.missing == ("c",) and coverage.unexpected == ("d",)
    assert coverage.mismatched == {"a.running_mean": ((3,), (4,))}
    assert coverage.added_by_design == ("b.norm.weight",)
    assert not coverage.complete
    assert coverage.summary() == "1/3 tensors, 12 parameters, 1 unexpected"
    assert "b.norm.weight" in coverage.table()
    assert compare_state({"a": (1,)}, {"a": (1,)}).complete
    assert not compare_state({}, {}).complete


@pytest.mark.slow
def test_tool_as_a_process(checkpoints, tmp_path):
    out = tmp_path / "out.pth"
    command = [sys.executable, str(TOOL), str(checkpoints[18]), str(out), "--to", "timm"]
    root = str(TOOL.parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    run = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment)
    assert run.returncode == 0, run.stderr
    assert "Everything matched" in run.stdout and out.exists()
