"""Starting points and plans of a comparison."""

import json
import subprocess

import pytest
import torch

from densessl.conversion.export import export_checkpoint
from densessl.conversion.source import IMAGENET_INPUT
from densessl.errors import UserError
from densessl.transfer.finetune import harness
from densessl.transfer.finetune.configure import (
    load_config,
)
from densessl.transfer.finetune.harness import _fit_backbone, finetune
from densessl.transfer.finetune.inits import Init, check_inits, prepare_init, tensors_of
from densessl.transfer.finetune.plan import alone_in, check_request, open_plan, runs_of
from tests.checkpoints import write_checkpoint
from tests.tiny_sets import make_mask_folders


def test_checkpoints_of_different_depths_are_not_compared():
    inits = [Init(str(n), "", None, f"{n}.pth", {}, n) for n in (18, 50)]
    with pytest.raises(UserError, match="18: ResNet-18, 50: ResNet-50"):
        _fit_backbone(load_config("fcn_small"), inits, {})


def test_a_checkpoint_that_has_changed_is_exported_anew(tmp_path):
    file, found = tmp_path / "a.pth", []
    for number in (1, 2):
        fill = lambda state, n=number: state["backbone.bn1.bias"].fill_(n)  # noqa: E731
        write_checkpoint(file, dict(type="ResNet", depth=18), change=fill)
        init = prepare_init("a", str(file), file, tmp_path / "inits", "mmdet", trust=False)
        found.append(tensors_of(init.file)["bn1.bias"].unique().tolist())
    assert found == [[1.0], [2.0]]


def test_missing_checkpoints_and_torchvision_weights(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="does not exist"):
        check_inits({"a": str(tmp_path / "none.pth")})
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match="supervised weights are not in"):
        check_inits({"supervised": "supervised"})
    (tmp_path / "checkpoints").mkdir()
    weights = tmp_path / "checkpoints" / "resnet50-0676ba61.pth"
    weights.write_bytes(b"")
    assert check_inits({"supervised": "supervised", "random": "random"}) == {
        "supervised": weights,
        "random": None,
    }


def test_jobs_read_a_copy_of_an_exported_file(tmp_path):
    """It may be written anew while the first jobs run."""
    theirs = tmp_path / "mine.pth"
    trained = write_checkpoint(tmp_path / "trained.pth", {"type": "ResNet", "depth": 18})
    assert export_checkpoint(trained, theirs, to="mmdet").passed
    init = prepare_init("a", str(theirs), theirs, tmp_path / "inits", "mmdet", False)
    theirs.write_bytes(b"another")
    assert (init.source, init.depth) == ("mine.pth", 18) and len(tensors_of(init.file)) == 120


@pytest.mark.parametrize(
    "inits,seeds,fractions",
    [
        ({"a/b": "random"}, [0], [1.0]),
        ({"a": "random"}, [0, 0], [1.0]),
        ({"a": "random"}, [-1], [1.0]),
        ({"a": "random"}, [2**32], [1.0]),
        ({"a": "random"}, [], [1.0]),
        ({"a": "random"}, [0], [0.0]),
        ({"a": "random"}, [0], [10.0]),
        ({"a": "random"}, [0], [0.1, 0.1]),
    ],
)
def test_impossible_requests(inits, seeds, fractions):
    with pytest.raises(UserError):
        check_request(inits, seeds, fractions)


def test_runs_that_are_compared_come_together():
    runs = list(runs_of(["a", "b"], [1, 2], [0.1, 1.0]))
    assert [(r.init, r.seed, r.fraction) for r in runs[:4]] == [
        ("a", 1, 1.0),
        ("b", 1, 1.0),
        ("a", 1, 0.1),
        ("b", 1, 0.1),
    ]
    assert len({run.name for run in runs}) == 8
    assert [run.predicts for run in runs] == [True, True, *[False] * 6]


def test_a_folder_with_another_plan_is_refused_once_it_has_begun(tmp_path):
    folder = tmp_path / "work"
    open_plan(folder, dict(config="a", seeds=[0]))
    open_plan(folder, dict(config="b", seeds=[0]))  # nothing was trained yet
    assert json.loads((folder / "plan.json").read_text())["config"] == "b"
    (folder / "runs").mkdir()
    open_plan(folder, dict(config="b", seeds=[0]))
    with pytest.raises(UserError, match="another comparison") as error:
        open_plan(folder, dict(config="b", seeds=[1, 0]))
    assert "seeds: there [0], now [1, 0]" in error.value.problem


A, B, RANDOM = (["a.pth", "1"], ["b.pth", "2"], ["random", None])


def test_an_initialisation_may_lie_elsewhere_later(tmp_path):
    open_plan(tmp_path, dict(inits=dict(a=A)))
    (tmp_path / "runs").mkdir()
    open_plan(tmp_path, dict(inits=dict(a=["moved/a.pth", "1"])))
    assert json.loads((tmp_path / "plan.json").read_text())["inits"] == dict(a=A)
    open_plan(tmp_path, dict(inits=dict(a=["moved/a.pth", "1"], b=B)))
    with pytest.raises(UserError, match="another comparison"):
        open_plan(tmp_path, dict(inits=dict(a=["moved/a.pth", "2"], b=B)))


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        (dict(seeds=[0, 1]), dict(seeds=[0, 1, 2]), True),
        (dict(seeds=[0, 1]), dict(seeds=[0, 2]), False),
        (dict(label_fractions=[1.0]), dict(label_fractions=[0.1, 1.0]), True),
        (dict(label_fractions=[0.1]), dict(label_fractions=[0.1, 1.0]), False),
        (dict(inits=dict(a=A, r=RANDOM)), dict(inits=dict(a=A, r=RANDOM, b=B)), True),
        (dict(inits=dict(a=A, r=RANDOM)), dict(inits=dict(b=B, a=A, r=RANDOM)), False),
        (dict(inits=dict(a=A)), dict(inits=dict(a=["a.pth", "3"], b=B)), False),
        (dict(inits=dict(r=RANDOM)), dict(inits=dict(r=RANDOM, a=A)), False),
    ],
)
def test_a_comparison_may_grow(tmp_path, old, new, same):
    open_plan(tmp_path, old)
    (tmp_path / "runs").mkdir()
    if not same:
        with pytest.raises(UserError, match="another comparison"):
            open_plan(tmp_path, new)
        return
    for plan in (new, old):  # the earlier command again is a part of it
        open_plan(tmp_path, plan)
        assert json.loads((tmp_path / "plan.json").read_text()) == new


def test_an_option_with_the_configs_own_value_is_another_plan(tmp_path, monkeypatch):
    """It keeps the batch of the config, which is a device's, or the rate, which would be scaled."""
    base = "densessl::transfer/segmentation/fcn_small.py"
    (tmp_path / "own.py").write_text(f'_base_ = "{base}"\ntransfer = dict(total_batch=4)\n')
    data, work = make_mask_folders(tmp_path / "set"), tmp_path / "work"

    def compare(**options):
        monkeypatch.setattr(harness, "run_all", lambda *_: (work / "runs").mkdir(exist_ok=True))
        given = {key.replace("__", "."): value for key, value in options.items()}
        finetune(tmp_path / "own.py", dict(a="random"), work, data=data, cfg_options=given)

    batch, rate = dict(train_dataloader__batch_size=8), dict(optim_wrapper__optimizer__lr=0.001)
    compare()
    compare(**rate)  # for the protocol's batch it is this one
    for options, message in (
        (batch, "images_a_step: there 4, now 8\n  learning_rate: there 0.001, now 0.002"),
        ({**batch, **rate}, "images_a_step: there 4, now 8"),
    ):
        with pytest.raises(UserError, match=message):
            compare(**options)


def test_a_folder_of_somebody_else_stays_as_it_is(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not made by"), alone_in(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_two_calls_do_not_share_a_folder(tmp_path):
    with alone_in(tmp_path):
        with pytest.raises(UserError, match="Another tools/transfer.py works"), alone_in(tmp_path):
            pass
    with alone_in(tmp_path):  # one that was killed at once left no plan
        pass


def test_a_job_that_outlives_its_parent_keeps_the_folder(tmp_path):
    with alone_in(tmp_path / "work"):
        job = subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False)
    with pytest.raises(UserError, match="Another tools/transfer.py works"):
        with alone_in(tmp_path / "work"):
            pass
    job.communicate()
    with alone_in(tmp_path / "work"):
        pass


def test_default_input_is_torchvisions():
    assert IMAGENET_INPUT["mean"][0] == pytest.approx(255 * 0.485)
