"""Evaluation while training: logged, its mistakes said early, without effect on training."""

import json
from types import SimpleNamespace

import pytest
import torch

from densessl.checkpoint import load_checkpoint
from densessl.engine import pretrain
from densessl.errors import UserError
from densessl.evaluation import EvaluationHook
from densessl.models.preprocessor import ViewPreprocessor
from densessl.transforms import MultiView
from tests.evaluation.sets import make_classes
from tests.tiny_sets import make_voc
from tests.training import write_config, write_images


def hook(data, **options) -> str:
    settings = dict(dict(type="EvaluationHook", data=str(data), size=32), **options)
    return f"custom_hooks = [{settings!r}]"


@pytest.mark.slow
def test_figures_are_logged_and_training_is_the_same(tmp_path, capsys):
    images = write_images(tmp_path / "images", 8)
    data = make_classes(tmp_path / "data", (4, 4, 4))
    plain = write_config(tmp_path / "plain.py", images)
    watched = write_config(
        tmp_path / "watched.py", images, extra=hook(data, tasks=["knn"], batch_size=4, workers=1)
    )
    one = load_checkpoint(pretrain(plain, work_dir=tmp_path / "one"))
    capsys.readouterr()
    two = load_checkpoint(pretrain(watched, work_dir=tmp_path / "two"))
    assert one["state_dict"].keys() == two["state_dict"].keys()
    for name, tensor in one["state_dict"].items():
        assert torch.equal(tensor, two["state_dict"][name]), name
    assert capsys.readouterr().out.count("eval/knn_top1") == 2  # an epoch each
    (file,) = (tmp_path / "two").glob("*/vis_data/scalars.json")
    logged = [json.loads(line) for line in file.read_text().splitlines()]
    values = [line["eval/knn_top1"] for line in logged if "eval/knn_top1" in line]
    assert len(values) == 2 and all(0 <= value <= 100 for value in values)
    history = two["message_hub"]["log_scalars"]["eval/knn_top1"]
    assert history.data[0].tolist() == values
    assert two["meta"]["view_size"] == 32


@pytest.mark.parametrize("which", ["student", "teacher"])
def test_the_backbone_that_was_asked_for_is_evaluated(which):
    student, teacher = torch.nn.Identity(), torch.nn.Identity()
    method = SimpleNamespace(
        backbone=student,
        teacher=SimpleNamespace(backbone=teacher),
        data_preprocessor=ViewPreprocessor(),
    )
    loader = SimpleNamespace(dataset=SimpleNamespace(transform=MultiView(["moco_v2"], 40)))
    runner = SimpleNamespace(model=method, train_dataloader=loader)
    frozen = EvaluationHook("data", which=which)._frozen(runner)
    assert frozen.module is (student if which == "student" else teacher)
    assert frozen.view_size == 40 and frozen.input == method.data_preprocessor.input


def test_the_last_epoch_is_evaluated_whatever_the_interval(monkeypatch):
    seen = []
    monkeypatch.setattr(EvaluationHook, "_evaluate", lambda self, runner: seen.append(runner.epoch))
    every_second = EvaluationHook("data", interval=2)
    for epoch in range(5):
        every_second.after_train_epoch(SimpleNamespace(epoch=epoch, max_epochs=5))
    assert seen == [1, 3, 4]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(tasks=["dense"]), "no layout known for masks"),
        (dict(which="tutor"), "EvaluationHook.which is 'tutor'"),
        (dict(taks=["knn"]), "Unknown key 'taks'"),
        (dict(size=0), "size cannot be 0"),
        (dict(k=0), "k cannot be 0"),
        (dict(limit="all"), "limit cannot be all"),
        (dict(batch_size=0), "EvaluationHook.batch_size is 0"),
        (dict(interval="2"), "EvaluationHook.interval is '2'"),
    ],
)
def test_mistakes_are_said_before_the_first_step(tmp_path, options, message):
    images = write_images(tmp_path / "images", 8)
    data = make_classes(tmp_path / "data", (4, 4, 4))
    config = write_config(tmp_path / "config.py", images, extra=hook(data, **options))
    with pytest.raises(UserError, match=message):
        pretrain(config, work_dir=tmp_path / "run")


def test_data_that_vanish_cost_a_warning_and_not_the_run(tmp_path, capsys, monkeypatch):
    from densessl.evaluation import hook as module

    images = write_images(tmp_path / "images", 8)
    data = make_classes(tmp_path / "data", (4, 4, 4))
    read = module.read_for

    def read_and_remove(*args, **kwargs):
        found = read(*args, **kwargs)
        for path in data.rglob("*.png"):
            path.unlink()
        return found

    monkeypatch.setattr(module, "read_for", read_and_remove)
    config = write_config(tmp_path / "config.py", images, extra=hook(data))
    assert pretrain(config, work_dir=tmp_path / "run").is_file()
    assert "no evaluation: 9 of 9 images cannot be read" in capsys.readouterr().out


def test_any_failure_costs_one_line_and_not_the_run(tmp_path, capsys, monkeypatch):
    images = write_images(tmp_path / "images", 8)
    data = make_voc(tmp_path / "data", train=10, val=6)
    before = EvaluationHook.before_train

    def read_and_remove(self, runner):
        before(self, runner)
        (data / "SegmentationClass" / "train_3.png").unlink()

    monkeypatch.setattr(EvaluationHook, "before_train", read_and_remove)
    config = write_config(tmp_path / "config.py", images, extra=hook(data, tasks=["dense"]))
    assert pretrain(config, work_dir=tmp_path / "run").is_file()
    lines = capsys.readouterr().out.splitlines()
    (line,) = {line.partition("WARNING")[2] for line in lines if "no evaluation" in line}
    assert "no evaluation: FileNotFoundError: " in line and "train_3.png" in line
