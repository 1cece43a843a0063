"""The pieces of the harness: schedule, options, starting points, plans, processes."""

import json
import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import EpochBasedTrainLoop, get_priority

from densessl.conversion.export import export_checkpoint
from densessl.conversion.source import IMAGENET_INPUT
from densessl.errors import UserError
from densessl.transfer.finetune.configure import (
    fit_backbone,
    fit_data,
    job_config,
    load_config,
    missing_files,
    move_data_root,
    set_batch,
    set_input,
    set_iterations,
)
from densessl.transfer.finetune.data import read_data
from densessl.transfer.finetune.harness import _fit_backbone
from densessl.transfer.finetune.inits import Init, check_inits, prepare_init, tensors_of
from densessl.transfer.finetune.job import RecordHook, _latest_checkpoint, explain
from densessl.transfer.finetune.plan import alone_in, check_request, open_plan, runs_of
from densessl.transfer.finetune.processes import rest
from densessl.transfer.mm.precise_bn import PreciseBNHook
from tests.checkpoints import write_checkpoint
from tests.transfer.tiny_sets import make_voc

VOC_C4 = "faster-rcnn_r50-c4_24k_voc0712"


# --- Configs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options,message",
    [
        ({"optim_wraper.optimizer.lr": 1}, "no key 'optim_wraper'.*'optim_wrapper'"),
        ({"optim_wrapper.optimizer.lrr": 1}, "no key 'lrr'.*'lr'"),
        ({"param_scheduler.7.end": 1}, "list of 2 items"),
        ({"something_new": 1}, "no key 'something_new'"),
        ({"model.backbone.depth.deeper": 1}, "model.backbone.depth holds no keys"),
    ],
)
def test_misspelt_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        load_config("faster-rcnn_fpn_small", options)


def test_a_number_that_cannot_be_is_named():
    for value in (0, "x"):
        with pytest.raises(UserError, match=f"batch_size is {value!r}.\n.*a whole number above 0"):
            load_config("fcn_small", {"train_dataloader.batch_size": value})


def test_models_of_mmdet_may_have_lists_where_ours_have_numbers():
    channels = [256, 128, 64]  # as YOLO's necks have
    cfg = load_config("fcos_fpn_small", {"model.neck.out_channels": channels})
    assert cfg.model.neck.out_channels == channels


def test_options_reach_the_config_and_new_arguments_pass():
    options = {"optim_wrapper.optimizer.lr": 0.5, "optim_wrapper.optimizer.amsgrad": True}
    optimizer = load_config("fcn_small", options).optim_wrapper.optimizer
    assert optimizer.lr == 0.5 and optimizer.amsgrad is True
    cfg = load_config("fcos_fpn_small", {"model.bbox_head.strides.0": 4})
    assert cfg.model.bbox_head.strides[0] == 4


def test_wrong_configs(tmp_path):
    with pytest.raises(UserError, match="fcn_smal.*'fcn_small.py'"):
        load_config("fcn_smal.py")
    (tmp_path / "other.py").write_text("a = 1")
    with pytest.raises(UserError, match="no transfer config"):
        load_config(tmp_path / "other.py")
    (tmp_path / "broken.py").write_text("a = (")
    with pytest.raises(UserError, match="cannot be read"):
        load_config(tmp_path / "broken.py")


@pytest.mark.slow
def test_iterations_stretch_the_whole_schedule():
    cfg = load_config(VOC_C4)
    set_iterations(cfg, 2400, {})
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (2400, 300)
    assert list(cfg.param_scheduler[1].milestones) == [1800, 2200]
    assert (cfg.param_scheduler[0].end, cfg.param_scheduler[1].end) == (100, 2400)

    cfg = load_config("mask-rcnn_r50-fpn_1x_coco")  # counted in epochs
    set_iterations(cfg, 1200, {})
    assert cfg.train_cfg.type == "IterBasedTrainLoop" and cfg.train_cfg.val_interval == 100
    steps = cfg.param_scheduler[1]
    assert (list(steps.milestones), steps.end, steps.by_epoch) == ([800, 1100], 1200, False)
    assert cfg.param_scheduler[0].end == 300

    cfg = load_config("fcn_small")
    set_iterations(cfg, 60, {})
    warm_up, cosine = cfg.param_scheduler
    assert warm_up.end == cosine.begin == 15 and cosine.end == 60

    cfg = load_config("fcn_small")
    set_iterations(cfg, 160, {})
    assert cfg.train_cfg.val_interval == 54  # 54, 108 and 160, not 53, 106, 159 and 160

    cfg = load_config("fcn_small", {"train_cfg.val_interval": 7})
    set_iterations(cfg, 60, {"train_cfg.val_interval": 7})
    assert cfg.train_cfg.val_interval == 7


def test_total_batch_or_linear_scaling():
    cfg = load_config(VOC_C4)
    assert "16 images" in set_batch(cfg, {})
    assert cfg.train_dataloader.batch_size == 16 and cfg.optim_wrapper.optimizer.lr == 0.02
    options = {"train_dataloader.batch_size": 4}
    cfg = load_config(VOC_C4, options)
    assert "0.005" in set_batch(cfg, options)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.005)
    options |= {"optim_wrapper.optimizer.lr": 0.03}
    cfg = load_config(VOC_C4, options)
    set_batch(cfg, options)
    assert cfg.optim_wrapper.optimizer.lr == 0.03


def test_accumulation_is_refused():
    options = {"optim_wrapper.accumulative_counts": 4}
    with pytest.raises(UserError, match="accumulative_counts is 4"):
        set_batch(load_config("fcn_small", options), options)


def test_cityscapes_needs_the_masks_that_its_archive_lacks(tmp_path):
    for part in ("leftImg8bit", "gtFine"):
        for split in ("train", "val"):
            (tmp_path / part / split / "bonn").mkdir(parents=True)
    (tmp_path / "gtFine" / "val" / "bonn" / "a_gtFine_labelTrainIds.png").touch()
    cfg = load_config("fcn_r50-d8_40k_cityscapes")
    move_data_root(cfg, tmp_path)
    (missing,) = missing_files(cfg)
    assert missing.endswith("gtFine/train/*/*_gtFine_labelTrainIds.png")
    assert "csCreateTrainIdLabelImgs" in cfg.transfer.data


def test_job_config_carries_init_input_seed_and_fraction(tmp_path):
    cfg = load_config("faster-rcnn_fpn_small")
    fit_data(cfg, read_data(make_voc(tmp_path / "set"), "detection", tmp_path / "lists"))
    assert cfg.model.roi_head.bbox_head.num_classes == 2
    inputs = dict(mean=[1.0, 2, 3], std=[4.0, 5, 6], channel_order="RGB")
    init = Init("a", "a.pth", "DenseCL", "/files/a.pth", inputs, 18)
    job = job_config(cfg, init, inputs, 3, 0.5, tmp_path)
    assert job.model.backbone.init_cfg.checkpoint == "/files/a.pth"
    assert job.model.data_preprocessor.mean == [1, 2, 3] and job.model.data_preprocessor.bgr_to_rgb
    assert (job.train_dataloader.dataset.fraction, job.train_dataloader.dataset.seed) == (0.5, 3)
    assert job.randomness.seed == 3
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    loader = job_config(cfg, init, inputs, 3, 0.5, tmp_path).train_dataloader
    assert loader.num_workers == 1 and loader.persistent_workers  # its random numbers are its own
    assert cfg.model.backbone.init_cfg.checkpoint != "/files/a.pth"  # the original is untouched
    set_input(cfg, dict(inputs, channel_order="BGR"))
    assert cfg.model.data_preprocessor.bgr_to_rgb is False
    job = job_config(cfg, init, dict(inputs, channel_order="Lab"), 3, 0.5, tmp_path)
    assert job.model.data_preprocessor.bgr_to_rgb is False
    for pipeline in (
        job.train_dataloader.dataset.dataset.pipeline,
        job.val_dataloader.dataset.pipeline,
    ):
        kinds = [step.type for step in pipeline]
        assert kinds.count("densessl.ToLab") == 1 and kinds[-2] == "densessl.ToLab"
        assert kinds[-1].startswith("Pack")


@pytest.mark.parametrize("name", ["faster-rcnn_fpn_small", "fcos_fpn_small", "fcn_small"])
def test_a_model_follows_the_depth_of_its_backbone(name):
    cfg = load_config(name)
    for depth, channels in ((50, [256, 512, 1024, 2048]), (18, [64, 128, 256, 512])):
        fit_backbone(cfg, depth)
        part = cfg.model.get("neck") or cfg.model.decode_head
        assert cfg.model.backbone.depth == depth
        assert part.in_channels == (channels if "neck" in cfg.model else channels[-1])


# --- Starting points and plans -------------------------------------------------------------------


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


def test_a_job_goes_on_from_its_newest_whole_checkpoint(tmp_path):
    assert _latest_checkpoint(tmp_path) is None
    for step in (9, 10):
        torch.save(dict(step=step), tmp_path / f"iter_{step}.pth")
    assert _latest_checkpoint(tmp_path) == str(tmp_path / "iter_10.pth")
    (tmp_path / "best_mIoU_iter_99.pth").write_bytes((tmp_path / "iter_10.pth").read_bytes())
    whole = (tmp_path / "iter_10.pth").read_bytes()
    (tmp_path / "iter_11.pth").write_bytes(whole[:-100])  # it was being written
    assert _latest_checkpoint(tmp_path) == str(tmp_path / "iter_10.pth")


def test_progress_is_said_and_a_dead_job_is_recorded(tmp_path, monkeypatch, capsys):
    """A job that dies without a word is a failed run, and the next one goes on."""
    import sys

    from densessl.transfer.finetune import processes

    script = (
        "import json, os, signal, sys, time; folder = sys.argv[1]\n"
        "if 'bad' in folder: os.kill(os.getpid(), signal.SIGKILL)\n"
        "json.dump(dict(iter=3, total=9, loss=.5, seconds_per_iter=1.0, seconds_left=6.0,"
        " phase='training', latest=None), open(folder + '/progress.json', 'w'))\n"
        "time.sleep(1)\n"
        "json.dump(dict(status='done', error=None, seconds=1.0, metrics=dict(AP=12.5)),"
        " open(folder + '/result.json', 'w'))\n"
    )
    spawn = processes.subprocess.Popen

    def fake(command, **options):
        folder = str(Path(command[-1]).parent)
        return spawn([sys.executable, "-c", script, folder], **options)

    monkeypatch.setattr(processes.subprocess, "Popen", fake)
    monkeypatch.setattr(processes, "SPEAK_EVERY", 0.1)

    def start(run):
        folder = tmp_path / run.name
        folder.mkdir(exist_ok=True)
        return folder

    runs = list(runs_of(["bad", "good"], [0], [1.0]))
    after = []
    processes.run_all(runs, start, 1, lambda: after.append(time.time()))
    assert len(after) == 2
    results = [json.loads((tmp_path / r.name / "result.json").read_text()) for r in runs]
    assert [r["status"] for r in results] == ["failed", "done"]
    assert "memory" in results[0]["error"]
    said = capsys.readouterr().out
    assert f"see {tmp_path / runs[0].name / 'log.txt'}" in said
    # Once, although there was time for several lines: there was nothing new.
    assert said.count("[2/2] good, 100 % of the labels, seed 0: training 3/9, loss 0.500") == 1
    assert "AP 12.50" in said
    processes.run_all(runs[1:], start, 1, lambda: after.append(0))
    assert len(after) == 2 and "done before" in capsys.readouterr().out


def test_jobs_side_by_side_share_the_time_that_is_left():
    assert rest([], 5.0, 4 / 2, this=8.0) == 5 + 2 * 8  # none has ended: as long as this one
    assert rest([10.0, 20.0], 5.0, 4 / 2, this=8.0) == 5 + 2 * 15


def test_an_error_of_a_data_worker_is_its_last_line():
    text = "Caught AssertionError in DataLoader worker process 0.\nOriginal Traceback:\n  a\n"
    error = AssertionError(text + "AssertionError: mask is too small\n")
    assert explain(error) == "AssertionError: mask is too small"
    assert explain(ValueError("first\nsecond")) == "ValueError: first"


def test_the_estimate_counts_evaluations_by_epoch(tmp_path):
    """Ten epochs of 20 steps, evaluated after each: half way, five evaluations are to come."""
    loop = object.__new__(EpochBasedTrainLoop)
    loop.val_interval = 1
    runner = SimpleNamespace(max_iters=200, train_loop=loop, train_dataloader=range(20))
    hook = RecordHook(tmp_path, os.getppid())
    hook.started, hook.first, hook.evaluating = time.time() - 50, 0, [10.0] * 5
    hook.curves = dict(metrics=[])
    hook._tell(runner, 100, 1.0)
    left = json.loads((tmp_path / "progress.json").read_text())["seconds_left"]
    assert left == pytest.approx(50, abs=1)
    hook.evaluating, hook.val_started = [], time.time() - 5
    hook._tell(runner, 200, evaluated=0.25)  # the last one, and the first that is measured
    told = json.loads((tmp_path / "progress.json").read_text())
    assert told["seconds_left"] == pytest.approx(15, abs=1)
    assert told["phase"] == "evaluating (25 %)"


def test_the_clock_of_an_evaluation_starts_before_precise_bn():
    assert get_priority(RecordHook.priority) < get_priority(PreciseBNHook.priority)


def test_default_input_is_torchvisions():
    assert IMAGENET_INPUT["mean"][0] == pytest.approx(255 * 0.485)
