"""How a run begins: from the weights of another file, by a launcher."""

import logging
import os
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from densessl.checkpoint import load_checkpoint
from densessl.conversion.export import export_checkpoint
from densessl.engine import pretrain, runner
from densessl.engine.beginning import begin_with
from densessl.engine.pretrain import check_launcher
from densessl.errors import UserError
from densessl.models.backbones import TimmBackbone
from densessl.models.preprocessor import ViewPreprocessor
from tests.training import write_config

RESNET = 'model["backbone"] = dict(_delete_=True, type="ResNet", depth=18)'


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A torchvision checkpoint, classifier and all."""
    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), file)
    return file


def test_student_and_teacher_begin_with_the_weights_of_the_file(
    tmp_path, images, weights, monkeypatch
):
    config, begun = write_config(tmp_path / "c.py", images, extra=RESNET), {}

    def watched(filename, method, logger):
        begin_with(filename, method, logger)
        begun.update({name: value.clone() for name, value in method.state_dict().items()})

    monkeypatch.setattr(runner, "begin_with", watched)
    # --resume on a work folder without a run, as a script says it that may be started again.
    options = {"train_cfg.max_steps": 1, "load_from": str(weights)}
    pretrain(config, work_dir=tmp_path / "run", resume="auto", **options)
    for name, value in load_checkpoint(weights).items():
        if not name.startswith("fc."):
            assert torch.equal(begun[f"backbone.{name}"], value)
            assert torch.equal(begun[f"teacher.backbone.{name}"], value)
    begun.clear()
    pretrain(
        config, work_dir=tmp_path / "run", resume="auto", **{**options, "train_cfg.max_steps": 2}
    )
    assert not begun, "a run that goes on does not start again"


def test_weights_that_do_not_fit_are_refused(tmp_path, images, weights):
    config = write_config(tmp_path / "c.py", images, extra=RESNET.replace("18", "34"))
    problem = r"holds a ResNet-18, which does not fit model\.backbone: 96 tensors differ, layer1\.2"
    with pytest.raises(UserError, match=problem):
        pretrain(config, work_dir=tmp_path / "run", load_from=str(weights))
    with pytest.raises(UserError, match="does not exist"):
        pretrain(config, work_dir=tmp_path / "other", load_from=str(tmp_path / "none.pth"))


@pytest.mark.parametrize(
    "launcher, found, problem",
    [
        ("mpi", {"OMPI_COMM_WORLD_LOCAL_RANK": "0"}, "in MASTER_ADDR"),
        ("mpi", {"OMPI_COMM_WORLD_LOCAL_RANK": "1", "MASTER_ADDR": "a"}, "than the 1 GPUs it has"),
        ("pytorch", {"LOCAL_RANK": "1"}, "torchrun started more processes"),
        ("pytorch", {"LOCAL_RANK": "0"}, None),
    ],
)
def test_what_a_launcher_left_is_looked_at_first(monkeypatch, launcher, found, problem):
    monkeypatch.setattr(os, "environ", found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=problem) if problem else nullcontext():
        check_launcher(launcher)
    if launcher == "mpi":
        assert found["LOCAL_RANK"] == found["OMPI_COMM_WORLD_LOCAL_RANK"], "mmengine reads this one"


def test_tensors_that_fit_another_network_are_refused(tmp_path, images):
    """Names and shapes do not show how many heads a vision transformer has."""
    vit = dict(type="TimmBackbone", name="vit_tiny_patch16_224", img_size=32, depth=2)
    extra = f'model["backbone"] = dict(_delete_=True, **{vit})'
    config = write_config(tmp_path / "c.py", images, base="moco", extra=extra)
    first = pretrain(config, work_dir=tmp_path / "first", **{"train_cfg.max_steps": 1})
    again = {"load_from": str(first), "train_cfg.max_steps": 1}
    pretrain(config, work_dir=tmp_path / "same", **again)
    with pytest.raises(UserError, match="is another network than model.backbone"):
        pretrain(config, work_dir=tmp_path / "other", **again, **{"model.backbone.num_heads": 6})


def stub(name):
    """As much of a method as ``begin_with`` looks at."""
    return SimpleNamespace(backbone=TimmBackbone(name), data_preprocessor=ViewPreprocessor())


def test_timms_own_file_is_of_the_network_that_begins_with_it(tmp_path):
    state = timm.create_model("convnext_atto").state_dict()
    save_file(state, tmp_path / "model.safetensors")  # which does not name it
    method = stub("convnext_atto")
    begin_with(str(tmp_path / "model.safetensors"), method, logging.getLogger())
    assert torch.equal(method.backbone.model.stem[0].weight, state["stem.0.weight"])


def test_the_network_that_a_file_shows_is_not_taken_for_another(tmp_path):
    torch.save(torchvision.models.resnet50().state_dict(), tmp_path / "resnet50.pth")
    with pytest.raises(UserError, match="is another network than model.backbone"):
        begin_with(str(tmp_path / "resnet50.pth"), stub("resnetaa50"), logging.getLogger())


def test_a_teacher_alone_will_do_and_another_input_is_said(tmp_path, images, capsys):
    config = write_config(tmp_path / "c.py", images, extra=RESNET)
    first = pretrain(config, work_dir=tmp_path / "first", **{"train_cfg.max_steps": 1})
    export_checkpoint(first, tmp_path / "teacher.pth", "torchvision", which="teacher")
    options = {"load_from": str(tmp_path / "teacher.pth"), "train_cfg.max_steps": 1}
    pretrain(config, work_dir=tmp_path / "same", **options)
    assert "was trained on" not in capsys.readouterr().out
    gray = {"model.data_preprocessor": dict(type="ViewPreprocessor", mean=[127.5] * 3)}
    pretrain(config, work_dir=tmp_path / "other", **options, **gray)
    assert "was trained on" in capsys.readouterr().out


def test_a_checkpoint_with_other_groups_of_parameters_is_explained(tmp_path, images):
    config = write_config(tmp_path / "c.py", images)
    first = pretrain(config, work_dir=tmp_path / "run", **{"train_cfg.max_steps": 1})
    slow_head = {"optim_wrapper.paramwise_cfg": dict(custom_keys=dict(head=dict(lr_mult=0.1)))}
    with pytest.raises(UserError, match="groups its parameters .* another optim_wrapper.param"):
        pretrain(config, work_dir=tmp_path / "run", resume=str(first), **slow_head)
