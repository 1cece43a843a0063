"""What a transfer config becomes for one job: schedule, batch, input, starting point, options."""

import subprocess
import sys
from pathlib import Path

import pytest

from densessl.engine.config import config_folder
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
from densessl.transfer.finetune.inits import Init
from tests.tiny_sets import make_voc

VOC_C4 = "faster-rcnn_r50-c4_24k_voc0712"


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


@pytest.mark.parametrize(
    "transfer", ["dict()", "[]", "dict(title='Mine')", "dict(task='detection', data='any')"]
)
def test_a_config_without_a_task_is_none_for_a_transfer(tmp_path, transfer):
    (tmp_path / "mine.py").write_text(f"transfer = {transfer}")
    with pytest.raises(UserError, match="is no transfer config"):
        load_config(tmp_path / "mine.py")


def test_a_task_that_is_none_is_named(tmp_path):
    base = "densessl::transfer/segmentation/fcn_small.py"
    (tmp_path / "mine.py").write_text(f"_base_ = {base!r}\ntransfer = dict(task='instances')")
    with pytest.raises(UserError, match="the transfer.task 'instances' .did you mean 'instance'"):
        load_config(tmp_path / "mine.py")


def test_a_misspelt_name_in_a_config_of_ones_own_is_shown(tmp_path):
    base = '_base_ = "densessl::transfer/segmentation/fcn_small.py"\n'
    (tmp_path / "mine.py").write_text(base + "img_scale = 3\nmodels = 4\n_trian_cfg = 5")
    assert load_config(tmp_path / "mine.py").img_scale == 3
    for wrong, right in (("trian_cfg", "train_cfg"), ("optim_wraper", "optim_wrapper")):
        (tmp_path / "mine.py").write_text(f"{base}{wrong} = dict(max_iters=1)")
        with pytest.raises(UserError, match=f"mine.py sets {wrong}.*did you mean '{right}'"):
            load_config(tmp_path / "mine.py")


@pytest.mark.parametrize("name", ["mask-rcnn_fpn_small", "fcos_fpn_small", "fcn_small"])
@pytest.mark.parametrize("own", ["json", ["json", "csv"]])
def test_imports_of_ones_own_come_after_those_that_the_config_needs(tmp_path, name, own):
    (base,) = config_folder().glob(f"transfer/*/{name}.py")
    (tmp_path / "own.py").write_text(
        f"_base_ = {str(base)!r}\ncustom_imports = dict(imports={own!r})\n"
    )
    needed = load_config(name).custom_imports.imports
    imports = load_config(tmp_path / "own.py").custom_imports.imports
    assert imports == [*needed, *([own] if isinstance(own, str) else own)]


def test_parts_are_registered_although_a_config_has_imports_of_its_own(tmp_path):
    """In a process of its own, as others have imported them here."""
    base = "densessl::transfer/detection/faster-rcnn_r50-c4_24k_voc0712.py"
    (tmp_path / "own.py").write_text(f"_base_ = {base!r}\ncustom_imports = dict(imports='json')\n")
    code = (
        "import sys; from densessl.transfer.finetune.configure import load_config; "
        "load_config(sys.argv[1]); from mmdet.registry import MODELS; "
        "assert 'Res5ExtraNorm' in MODELS.module_dict"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "own.py"], check=True)


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


def test_iterations_stretch_schedules_of_ones_own(tmp_path):
    """Also those that say their length beside their end, as RTMDet's does."""
    cosine = dict(type="CosineAnnealingLR", T_max=550, by_epoch=False, begin=50, end=600)
    cfg = load_config(_own(tmp_path, [dict(type="LinearLR", by_epoch=False, end=50), cosine]))
    set_iterations(cfg, 60, {})
    cosine = cfg.param_scheduler[1]
    assert (cosine.begin, cosine.end, cosine.T_max) == (15, 60, 45)

    by_epoch = dict(type="CosineAnnealingLR", T_max=12, end=12, convert_to_iter_based=True)
    length = dict(_delete_=True, type="EpochBasedTrainLoop", max_epochs=12, val_interval=1)
    cfg = load_config(_own(tmp_path, [by_epoch], length))
    set_iterations(cfg, 60, {})
    assert cfg.param_scheduler[0].T_max == 60
    assert "convert_to_iter_based" not in cfg.param_scheduler[0]

    alone = dict(type="StepLR", step_size=200, gamma=0.5, by_epoch=False, end=600)
    cfg = load_config(_own(tmp_path, dict(alone, _delete_=True)))  # mmengine takes one without list
    set_iterations(cfg, 60, {})
    assert (cfg.param_scheduler.end, cfg.param_scheduler.step_size) == (60, 20)


def _own(folder: Path, schedule: list | dict, length: dict | None = None) -> Path:
    text = '_base_ = "densessl::transfer/segmentation/fcn_small.py"\n'
    text += f"param_scheduler = {schedule}\ntrain_cfg = {length or {}}\n"
    (folder / "own.py").write_text(text)
    return folder / "own.py"


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
