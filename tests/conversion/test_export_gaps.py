"""Files with gaps, altered files, and targets that disagree: nothing passes that is not whole."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import densessl.conversion.export as export_module
from densessl.conversion.coverage import compare_state
from densessl.conversion.export import ExportReport, StageDifference, export_checkpoint, verify
from densessl.conversion.source import load_backbone
from densessl.conversion.targets.torchvision import Torchvision
from densessl.errors import UserError
from tests.checkpoints import convert, write_checkpoint


def gap_removed(state):
    del state["backbone.layer3.1.bn2.running_var"]


def gap_shape(state):
    state["backbone.layer2.0.conv1.weight"] = torch.zeros(128, 64, 1, 1)


def gap_unexpected(state):
    state["backbone.fc.weight"] = torch.zeros(10, 512)


def gap_deep_stem(state):
    for name in [name for name in state if name.startswith(("backbone.conv1", "backbone.bn1"))]:
        del state[name]
    state["backbone.stem.0.weight"] = torch.zeros(32, 3, 3, 3)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (gap_removed, "layer3.1.bn2.running_var"),
        (gap_shape, "layer2.0.conv1.weight: the net has 128x64x3x3, the file 128x64x1x1"),
        (gap_unexpected, "fc.weight"),
        (gap_deep_stem, "stem.0.weight"),
    ],
)
def test_gap_in_the_checkpoint(change, named, tmp_path, capsys):
    architecture = {"type": "ResNet", "depth": 18}
    src = write_checkpoint(tmp_path / "src.pth", architecture, change=change)
    assert convert.main([str(src), str(tmp_path / "out.pth"), "--to", "mmdet"]) == 1
    text = capsys.readouterr().out
    assert named in text and "NOT matched" in text
    assert [file.name for file in tmp_path.iterdir()] == ["src.pth"]
    with pytest.raises(UserError, match=named.split(":")[0]):
        load_backbone(src)


def test_a_tensor_that_the_target_left_alone_is_no_match():
    coverage = compare_state({"a": (1,)}, {"a": (1,)})
    equal, unlike, nan = (StageDifference("plain", "C5", (1, 1, 1), e) for e in (0, 1, torch.nan))
    report = ExportReport(Path("a"), "a", "mmdet", "student", "", "", coverage, (equal,))
    assert report.passed
    for change in (dict(stages=()), dict(stages=(equal, unlike)), dict(stages=(equal, nan))):
        assert not replace(report, **change).passed
    left = replace(report, not_loaded=("a",))
    assert not left.passed and "mmdet left tensors unloaded" in left.summary()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "passes_coverage"),
    [("layer1.0.bn1.running_mean", True), ("conv1.weight", True), (None, False)],
)
def test_verify_finds_an_altered_file(name, passes_coverage, checkpoints, exported, tmp_path):
    content, altered = torch.load(exported), tmp_path / "altered.pth"
    if name is None:
        del content["state_dict"]["layer4.0.downsample.0.weight"]
    else:
        content["state_dict"][name] += 0.1
    torch.save(content, altered)
    report = verify(altered, checkpoints[18])
    assert report.coverage.complete is passes_coverage and not report.passed
    assert "NOT matched" in report.summary() and altered.exists()


@pytest.mark.slow
def test_verify_an_untouched_file(checkpoints, exported):
    assert verify(exported, checkpoints[18]).passed
    with pytest.raises(UserError, match="no exported file"):
        verify(checkpoints[18], checkpoints[18])


@pytest.mark.slow
def test_verify_detectron2(checkpoints, tmp_path):
    out = tmp_path / "out.pkl"
    export_checkpoint(checkpoints[18], out, to="detectron2")
    assert verify(out, checkpoints[18]).passed
    content = pickle.loads(out.read_bytes())
    content["model"]["res4.1.conv1.norm.weight"] += 0.1
    out.write_bytes(pickle.dumps(content))
    assert not verify(out, checkpoints[18]).passed
    out.write_bytes(pickle.dumps({"model": Path("a")}))  # a class that has no place there
    with pytest.raises(UserError, match="no file that densessl exported"):
        verify(out, checkpoints[18])


class Deaf(Torchvision):
    """A target whose loading silently does nothing, as strict=False with a wrong prefix."""

    def build(self, architecture, path=None):
        return super().build(architecture)


class Slightly(Torchvision):
    """A target that computes almost the same maps."""

    def forward(self, model, images):
        maps = super().forward(model, images)
        return [*maps[:3], maps[3] * (1 + 1e-3)]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "reason"), [(Deaf, "unloaded"), (Slightly, "maps differ")])
def test_nothing_is_left_when_the_target_disagrees(
    kind, reason, checkpoints, tmp_path, monkeypatch
):
    monkeypatch.setattr(export_module, "get_target", lambda name: kind())
    report = export_checkpoint(checkpoints[18], tmp_path / "out.pth", to="torchvision")
    assert not report.passed and reason in report.summary()
    assert list(tmp_path.iterdir()) == []
    if kind is Slightly:
        assert [stage.passed for stage in report.stages] == [True, True, True, False]
