"""The pieces of the harness: data, schedule, options, starting points, plans, processes."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.runner import EpochBasedTrainLoop, get_priority
from PIL import Image

from densessl.errors import UserError
from densessl.models.backbones import build_backbone
from densessl.transfer.finetune.configure import (
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
from densessl.transfer.finetune.inits import Init, check_inits, resnet_depth
from densessl.transfer.finetune.job import RecordHook, explain
from densessl.transfer.finetune.plan import check_request, open_plan, runs_of
from densessl.transfer.mm.precise_bn import PreciseBNHook
from densessl.transfer.source import IMAGENET_INPUT
from tests.transfer.tiny_sets import make_coco, make_mask_folders, make_voc

VOC_C4 = "faster-rcnn_r50-c4_24k_voc0712"


# --- Data ----------------------------------------------------------------------------------------


def test_reads_voc_boxes(tmp_path):
    data = read_data(make_voc(tmp_path / "set"), "detection", tmp_path / "lists")
    assert (data.classes, data.train_images, data.val_images) == (["disc", "square"], 8, 4)
    assert data.evaluator["eval_mode"] == "area" and "area" in data.metric_note
    entry = json.loads(Path(data.train["ann_file"]).read_text())[0]
    mask = np.asarray(Image.open(tmp_path / "set" / "SegmentationClass" / "train_0.png"))
    for box in entry["instances"]:
        left, top, right, bottom = (int(v) for v in box["bbox"])
        # The box is the mask's: VOC counts from 1, mmdet from 0.
        inside = mask[top:bottom, left:right]
        assert set(np.unique(inside)) <= {0, box["bbox_label"] + 1}
        assert all((side != 0).any() for side in (inside[0], inside[-1], inside[:, 0]))


def test_finds_voc_two_folders_down_and_keeps_chosen_classes(tmp_path):
    make_voc(tmp_path / "set" / "VOCdevkit" / "VOC2012", train=12)
    data = read_data(tmp_path / "set", "detection", tmp_path / "lists", ["square"])
    assert data.classes == ["square"]
    entries = json.loads(Path(data.train["ann_file"]).read_text())
    assert all(box["bbox_label"] == 0 for e in entries for box in e["instances"])


@pytest.mark.parametrize("task,metric", [("detection", ["bbox"]), ("instance", ["bbox", "segm"])])
def test_reads_coco(tmp_path, task, metric):
    data = read_data(make_coco(tmp_path / "set"), task, tmp_path / "lists")
    assert (data.classes, data.train_images, data.val_images) == (["disc", "square"], 8, 4)
    assert data.evaluator["metric"] == metric
    assert data.train["data_prefix"]["img"].endswith("train2017/")


@pytest.mark.parametrize("make", [make_voc, make_mask_folders])
def test_reads_masks(tmp_path, make):
    data = read_data(make(tmp_path / "set"), "segmentation", tmp_path / "lists")
    names = ["disc", "square"] if make is make_voc else ["class 1", "class 2"]
    assert data.classes == ["background", *names]
    assert (data.train_images, data.val_images) == (8, 4)
    assert data.train["indices_of"] == {"0": 0, "1": 1, "2": 2}


def test_mask_classes_by_index_leave_the_rest_out(tmp_path):
    root = make_mask_folders(tmp_path / "set")
    data = read_data(root, "segmentation", tmp_path / "lists", ["0=nothing", "2=square"])
    assert data.classes == ["nothing", "square"]
    assert data.train["indices_of"] == {"0": 0, "1": 255, "2": 1}


def test_a_note_names_the_mask_classes_that_are_not_asked_for(tmp_path):
    root = make_mask_folders(tmp_path / "set")
    data = read_data(root, "segmentation", tmp_path / "lists", ["background", "class 2"])
    assert data.metric_note.endswith("not asked for and ignored: class 1")


def corrected_mask(root):
    path = root / "SegmentationClass" / "val_0.png"
    pixels = np.array(Image.open(path))
    pixels[0, 0] = 2 - pixels[0, 0]
    Image.fromarray(pixels).save(path)


def corrected_box(root):
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][2] += 1
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "make, task, correct",
    [(make_voc, "segmentation", corrected_mask), (make_coco, "detection", corrected_box)],
)
def test_corrected_labels_have_another_hash(tmp_path, make, task, correct):
    root = make(tmp_path / "set")
    hashes = [read_data(root, task, tmp_path / "lists").labels_sha256 for _ in range(2)]
    correct(root)
    hashes.append(read_data(root, task, tmp_path / "lists").labels_sha256)
    assert hashes[0] == hashes[1] != hashes[2]


def turn(path):
    """Stores the image on its side, with the EXIF orientation that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.crop((0, 0, 96, 64)).rotate(90, expand=True).save(path, exif=exif, quality=95)


def test_labels_of_the_upright_image_pass(tmp_path):
    root = make_voc(tmp_path / "set")
    turn(root / "JPEGImages" / "train_0.jpg")
    mask, xml = root / "SegmentationClass" / "train_0.png", root / "Annotations" / "train_0.xml"
    Image.open(mask).crop((0, 0, 96, 64)).save(mask)
    xml.write_text(xml.read_text().replace("<height>96", "<height>64"))
    read_data(root, "segmentation", tmp_path / "lists")
    read_data(root, "detection", tmp_path / "lists")
    xml.write_text(xml.read_text().replace("<height>64", "<height>0"))
    data = read_data(root, "detection", tmp_path / "lists")
    entry = json.loads(Path(data.train["ann_file"]).read_text())[0]
    assert (entry["width"], entry["height"]) == (96, 64)


def remove_masks(root):
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    for item in content["annotations"]:
        item["segmentation"] = []
    path.write_text(json.dumps(content))


def empty_boxes(root):
    for path in (root / "Annotations").glob("train*.xml"):
        path.write_text(
            "<annotation><size><width>96</width><height>96</height></size></annotation>"
        )


def colour_mask(root):
    path = root / "masks" / "train" / "0.png"
    Image.open(path).convert("RGB").save(path)


def coco_change(split, change):
    def spoil(root):
        path = root / "annotations" / f"instances_{split}2017.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return spoil


def star_in_val(content):
    content["annotations"][0]["category_id"] = 3


def star_in_both(root):
    for split in ("train", "val"):
        coco_change(split, lambda c: c["categories"].append(dict(id=3, name="star")))(root)
    coco_change("val", star_in_val)(root)


def black_and_white(root):
    for path in (root / "masks").rglob("*.png"):
        Image.fromarray((np.array(Image.open(path)) > 0).astype(np.uint8) * 255).save(path)


def new_class_in_val(root):
    path = root / "Annotations" / "val_0.xml"
    path.write_text(path.read_text().replace("disc", "star").replace("square", "star"))


BAD_DATA = {
    "no VOC annotation file": (
        make_voc,
        "detection",
        lambda root: (root / "Annotations" / "train_3.xml").unlink(),
        "train_3.xml is missing",
    ),
    "broken xml": (
        make_voc,
        "detection",
        lambda root: (root / "Annotations" / "train_3.xml").write_text("<annotation>"),
        "train_3.xml cannot be read",
    ),
    "no image": (
        make_voc,
        "detection",
        lambda root: (root / "JPEGImages" / "val_1.jpg").unlink(),
        "no image 'val_1'",
    ),
    "no boxes": (make_voc, "detection", empty_boxes, "have no boxes"),
    "no split": (
        make_voc,
        "detection",
        lambda root: (root / "ImageSets" / "Main" / "val.txt").unlink(),
        "no train.txt with val.txt",
    ),
    "empty split": (
        make_voc,
        "detection",
        lambda root: (root / "ImageSets" / "Main" / "val.txt").write_text("\n"),
        "names no image",
    ),
    "class only in val": (make_voc, "detection", new_class_in_val, "no training image shows: star"),
    "boxes without masks": (make_coco, "instance", remove_masks, "boxes but no masks"),
    "COCO image missing": (
        make_coco,
        "detection",
        lambda root: (root / "train2017" / "0.jpg").unlink(),
        "1 images of instances_train2017.json",
    ),
    "broken json": (
        make_coco,
        "detection",
        lambda root: (root / "annotations" / "instances_val2017.json").write_text("{"),
        "instances_val2017.json cannot be read",
    ),
    "masks in colour": (make_mask_folders, "segmentation", colour_mask, "not class indices"),
    "mask missing": (
        make_mask_folders,
        "segmentation",
        lambda root: (root / "masks" / "val" / "1.png").unlink(),
        "have no mask",
    ),
    "VOC image on its side": (
        make_voc,
        "detection",
        lambda root: turn(root / "JPEGImages" / "train_3.jpg"),
        "train_3.xml has 96x96 pixels",
    ),
    "mask of an image on its side": (
        make_voc,
        "segmentation",
        lambda root: turn(root / "JPEGImages" / "val_0.jpg"),
        "val_0.png has 96x96 pixels",
    ),
    "COCO image on its side": (
        make_coco,
        "detection",
        lambda root: turn(root / "val2017" / "2.jpg"),
        "The entry of 2.jpg in",
    ),
    "broken image": (
        make_coco,
        "detection",
        lambda root: (root / "train2017" / "1.jpg").write_bytes(b"no image"),
        "1.jpg cannot be read",
    ),
    "broken mask": (
        make_mask_folders,
        "segmentation",
        lambda root: (root / "masks" / "val" / "1.png").write_bytes(b"no image"),
        "1.png cannot be read",
    ),
    "annotation without image": (
        make_coco,
        "detection",
        coco_change("val", lambda c: c["annotations"][0].update(image_id=77)),
        "belongs to image 77",
    ),
    "box of three numbers": (
        make_coco,
        "detection",
        coco_change("train", lambda c: c["annotations"][0].update(bbox=[1, 2, 3])),
        "has the bbox [1, 2, 3]",
    ),
    "COCO class only in val": (make_coco, "detection", star_in_both, "image shows: star"),
    "masks of 0 and 255": (make_mask_folders, "segmentation", black_and_white, '"ignore"'),
    "instance task on VOC": (make_voc, "instance", lambda root: None, "no layout known"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_named(tmp_path, case):
    make, task, spoil, message = BAD_DATA[case]
    root = make(tmp_path / "set")
    spoil(root)
    with pytest.raises(UserError) as error:
        read_data(root, task, tmp_path / "lists")
    assert message in error.value.problem and error.value.remedy


def test_one_mask_class_alone_is_refused(tmp_path):
    root = make_mask_folders(tmp_path / "set")
    with pytest.raises(UserError, match="fewer than two classes.*\n.*background as well"):
        read_data(root, "segmentation", tmp_path / "lists", ["class 1"])


def test_missing_empty_and_unknown_folders(tmp_path):
    for spoil, message in (
        (lambda p: None, "does not exist"),
        (lambda p: p.mkdir(), "is empty"),
        (lambda p: (p / "stuff").mkdir(), "no layout known"),
    ):
        spoil(tmp_path / "set")
        with pytest.raises(UserError, match=message):
            read_data(tmp_path / "set", "detection", tmp_path / "lists")


def test_a_class_that_is_not_there_gets_a_suggestion(tmp_path):
    with pytest.raises(UserError, match="no class 'sqare'.*'square'"):
        read_data(make_voc(tmp_path / "set"), "detection", tmp_path / "lists", ["sqare"])


# --- Configs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options,message",
    [
        ({"optim_wraper.optimizer.lr": 1}, "no key 'optim_wraper'.*'optim_wrapper'"),
        ({"optim_wrapper.optimizer.lrr": 1}, "no key 'lrr'.*'lr'"),
        ({"param_scheduler.7.end": 1}, "list of 2 items"),
        ({"something_new": 1}, "no key 'something_new'"),
    ],
)
def test_misspelt_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        load_config("faster-rcnn_fpn_small", options)


def test_options_reach_the_config_and_new_arguments_pass():
    options = {"optim_wrapper.optimizer.lr": 0.5, "optim_wrapper.optimizer.amsgrad": True}
    optimizer = load_config("fcn_small", options).optim_wrapper.optimizer
    assert optimizer.lr == 0.5 and optimizer.amsgrad is True


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


# --- Starting points and plans -------------------------------------------------------------------


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


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_depth_from_the_tensors(depth):
    assert resnet_depth(build_backbone(dict(type="ResNet", depth=depth)).state_dict()) == depth


@pytest.mark.parametrize(
    "inits,seeds,fractions",
    [
        ({"a/b": "random"}, [0], [1.0]),
        ({"a": "random"}, [0, 0], [1.0]),
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
        open_plan(folder, dict(config="b", seeds=[0, 1]))
    assert "seeds: there [0], now [0, 1]" in error.value.problem
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    with pytest.raises(UserError, match="not made by"):
        open_plan(tmp_path / "other", dict(config="b"))


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
    assert "[2/2] good, 100 % of the labels, seed 0: training 3/9, loss 0.500" in said
    assert "AP 12.50" in said
    processes.run_all(runs[1:], start, 1, lambda: after.append(0))
    assert len(after) == 2 and "done before" in capsys.readouterr().out


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
    hook._tell(runner, 100, 1.0, "training")
    left = json.loads((tmp_path / "progress.json").read_text())["seconds_left"]
    assert left == pytest.approx(50, abs=1)


def test_the_clock_of_an_evaluation_starts_before_precise_bn():
    assert get_priority(RecordHook.priority) < get_priority(PreciseBNHook.priority)


def test_default_input_is_torchvisions():
    assert IMAGENET_INPUT["mean"][0] == pytest.approx(255 * 0.485)
