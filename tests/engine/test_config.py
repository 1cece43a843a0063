"""What is misspelt is named, with the near name; what is right passes."""

from copy import deepcopy

import pytest
from mmengine.config import Config
from mmengine.registry import MODEL_WRAPPERS

from densessl.engine.checks import check_config
from densessl.engine.config import load_config, set_runtime_defaults
from densessl.engine.hooks import BrokenImagesHook
from densessl.engine.optim import PretrainDDP
from densessl.errors import UserError
from densessl.models.backbones import ResNet
from densessl.registry import MODELS

CONFIG = "densecl/densecl_r18_1xb64-coslr-100e_folder.py"

MISSPELT = {
    "trian_cfg.max_epochs": ("trian_cfg", "train_cfg"),
    "work_dri": ("work_dri", "work_dir"),
    "train_cfg.max_epoch": ("max_epoch", "max_epochs"),
    "train_dataloader.batchsize": ("batchsize", "batch_size"),
    "train_dataloader.dataset.max_brokn": ("max_brokn", "max_broken"),
    "train_dataloader.dataset.transform.sise": ("sise", "size"),
    "model.tempreature": ("tempreature", "temperature"),
    "model.backbone.dept": ("dept", "depth"),
    "model.head.hidden_chanels": ("hidden_chanels", "hidden_channels"),
    "optim_wrapper.acumulative_counts": ("acumulative_counts", "accumulative_counts"),
    "optim_wrapper.optimizer.weight_deacy": ("weight_deacy", "weight_decay"),
    "optim_wrapper.clip_grad.max_nrom": ("max_nrom", "max_norm"),
    "optim_wrapper.paramwise_cfg.norm_decay_mul": ("norm_decay_mul", "norm_decay_mult"),
    "param_scheduler.1.eta_mni": ("eta_mni", "eta_min"),
    "env_cfg.cudnn_benchmrk": ("cudnn_benchmrk", "cudnn_benchmark"),
    "env_cfg.mp_cfg.mp_start_metod": ("mp_start_metod", "mp_start_method"),
    "auto_scale_lr.enabled": ("enabled", "enable"),
    "randomness.sed": ("sed", "seed"),
    "log_processor.windw_size": ("windw_size", "window_size"),
    "default_hooks.logge.interval": ("logge", "logger"),
    "default_hooks.logger.intervall": ("intervall", "interval"),
    "default_hooks.finite_loss.intervall": ("intervall", "interval"),
}

VALID = {
    "model.grid": 3,
    "model.queue_size": None,
    "model.backbone.zero_init_residual": True,
    "model.head.hidden_channels": [64, 64],
    "model.data_preprocessor": dict(type="ViewPreprocessor", mean=[0, 0, 0]),
    "train_dataloader.dataset.max_broken": 0.2,
    "train_dataloader.dataset.transform.views.0": "byol_1",
    "train_dataloader.dataset.transform.views": [dict(preset="moco_v2", size=32), "crop_flip"],
    "train_dataloader.prefetch_factor": 4,
    "train_cfg.max_steps": 10,
    "optim_wrapper.accumulative_counts": 2,
    "optim_wrapper.precision": "bf16",
    "optim_wrapper.clip_grad": dict(type="value", clip_value=1.0),
    "optim_wrapper.paramwise_cfg": dict(norm_decay_mult=0.0),
    "optim_wrapper.optimizer": dict(type="AdamW", lr=1e-3, betas=(0.9, 0.95), _delete_=True),
    "param_scheduler": [dict(type="LinearLR", start_factor=0.1, end=5)],
    "env_cfg.dist_cfg": dict(backend="gloo", timeout=1800),
    "env_cfg.mp_cfg.mp_start_method": "spawn",
    "default_hooks.finite_loss.interval": 1,
    "default_hooks.timer": None,
    "default_hooks.mine": dict(type="EMAHook", momentum=0.1),
    "custom_hooks": [dict(type="BrokenImagesHook", enough=3)],
    "randomness": dict(deterministic=True, diff_rank_seed=True),
    "work_dir": "somewhere",
    "experiment_name": "mine",
    "_mine": 3,
}


@pytest.fixture(scope="module")
def shipped() -> Config:
    return load_config(CONFIG)


@pytest.mark.parametrize("key", MISSPELT)
def test_a_misspelt_key_is_named_with_the_near_one(shipped, key):
    wrong, right = MISSPELT[key]
    with pytest.raises(UserError) as caught:
        load_config(shipped, {key: 1})
    assert f"Unknown key '{wrong}'" in caught.value.problem
    assert f"did you mean '{right}'?" in caught.value.problem


@pytest.mark.parametrize(
    "key, wrong, right",
    [
        ("model.type", "DensCL", "DenseCL"),
        ("model.backbone.type", "Resnet", "ResNet"),
        ("train_dataloader.dataset.type", "ImageFoldr", "ImageFolder"),
        ("train_dataloader.dataset.transform.type", "MultiVew", "MultiView"),
        ("optim_wrapper.optimizer.type", "Adamw", "AdamW"),
        ("param_scheduler.1.type", "CosineAnealingLR", "CosineAnnealingLR"),
        ("train_cfg.type", "PretrainLop", "PretrainLoop"),
    ],
)
def test_a_misspelt_type_is_named_with_the_near_one(shipped, key, wrong, right):
    with pytest.raises(UserError) as caught:
        load_config(shipped, {key: wrong})
    assert f"Unknown type '{wrong}' in {key.removesuffix('.type')}" in caught.value.problem
    assert f"did you mean '{right}'?" in caught.value.problem


@pytest.mark.parametrize("key", VALID)
def test_a_right_key_passes(shipped, key):
    cfg = load_config(shipped, {key: VALID[key]})
    value = cfg
    for part in key.split("."):
        value = value[int(part)] if part.isdigit() else value[part]
    expected = VALID[key]
    if isinstance(expected, dict):
        expected = {name: item for name, item in expected.items() if name != "_delete_"}
        assert expected == {name: value[name] for name in expected}
    else:
        assert value == expected


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("train_dataloader.batch_size", 0, "a whole number above 0"),
        ("train_dataloader.batch_size", "x", "a whole number above 0"),
        ("train_dataloader.num_workers", -1, "a whole number, 0 or above"),
        ("randomness.seed", 2**32, "a whole number from 0 to 4294967295"),
        ("randomness.seed", True, "a whole number from 0 to 4294967295"),
        ("train_cfg.max_epochs", 1.5, "a whole number above 0"),
        ("model.queue_size", True, "a whole number above 0"),
        ("model.temperature", 0, "a number above 0"),
        ("optim_wrapper.optimizer.lr", "high", "a number above 0"),
        ("model.momentum", 2, "a number from 0 to 1"),
        ("model.dense_head.out_channels", 0, "a whole number above 0"),
        ("model.momentum", None, "a number from 0 to 1"),
        ("train_cfg", 7, "give a dict"),
        ("auto_scale_lr.base_batch_size", -1, "a whole number above 0"),
        ("optim_wrapper.optimizer.weight_decay", -0.1, "a number, 0 or above"),
        ("default_hooks.checkpoint.interval", 0, "a whole number above 0, or -1"),
        ("default_hooks.checkpoint.max_keep_ckpts", "all", "a whole number above 0, or -1"),
        ("env_cfg.mp_cfg.mp_start_method", "spwan", "'fork', 'spawn' or 'forkserver'"),
        ("log_processor.window_size", 0, "a whole number above 0"),
        ("param_scheduler.0.start_factor", 0, "a number above 0, at most 1"),
        ("param_scheduler.1.eta_min", "x", "a number, 0 or above"),
        ("param_scheduler", ["LinearLR"], "a list of dicts"),
        ("custom_hooks", ["BrokenImagesHook"], "a list of dicts"),
        ("custom_hooks", "BrokenImagesHook", "a list of dicts"),
        ("train_dataloader.sampler", "ViewSampler", "a dict, or leave it out"),
        ("default_scope", 5, "a string"),
        ("log_processor.mean_pattern", 5, "a string"),
    ],
)
def test_a_value_that_cannot_be_is_named(shipped, key, value, words):
    with pytest.raises(UserError) as caught:
        load_config(shipped, {key: value})
    assert caught.value.problem == f"{key} is {value!r}." and words in caught.value.remedy


@pytest.mark.parametrize(
    "config, key, value",
    [
        ("simclr_r18_1xb64-coslr-100e_folder", "model.loss.temperature", 0),
        ("byol-dense_r18_1xb64-coslr-100e_folder", "model.dense.warmup_steps", -3),
        ("triplet_r18_1xb64-coslr-100e_folder", "model.loss.margin", 0),
        ("vicreg_r18_1xb64-coslr-100e_folder", "model.loss.cov_weight", -1),
        ("pirl_r18_1xb64-coslr-100e_folder", "model.num_negatives", None),
        ("byol-dense_r18_1xb64-coslr-100e_folder", "model.dense.head.out_channels", 0.5),
        ("cpc_r18_1xb64-coslr-100e_folder", "model.context.width", 0),
        ("dim_r18_1xb64-coslr-100e_folder", "model.prior_weight", -1),
    ],
)
def test_numbers_of_any_part_of_the_model_are_checked(config, key, value):
    with pytest.raises(UserError, match=f"{key} is {value}"):
        load_config(config, {key: value})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (dict(optim_wrapper=dict(type="OptimWrapper")), "needs a PrecisionOptimWrapper"),
        (dict(optim_wrapper=dict(type="AmpOptimWrapper")), "needs a PrecisionOptimWrapper"),
        (dict(train_cfg=dict(type="EpochBasedTrainLoop")), "needs a PretrainLoop"),
        (dict(train_cfg=dict(_delete_=True, by_epoch=False, max_iters=9)), "key 'by_epoch'"),
        (
            dict(train_dataloader=dict(sampler=dict(type="DefaultSampler", shuffle=True))),
            "needs a ViewSampler",
        ),
        (dict(train_cfg=dict(type="IterBasedTrainLoop", max_iters=9)), "needs a PretrainLoop"),
        (
            dict(model_wrapper_cfg=dict(type="MMDistributedDataParallel")),
            "model_wrapper_cfg.type is .* needs a PretrainDDP",
        ),
        (dict(custom_hooks=dict(type="BrokenImagesHook")), "custom_hooks is {'type': 'Broken"),
        (dict(default_hooks=dict(timer="IterTimerHook")), "default_hooks is {.*'IterTimerHook'"),
        (
            dict(default_hooks=dict(mine=dict(type="mmengine.EarlyStoppingHook", monitor="x"))),
            "EarlyStoppingHook needs validation scores",
        ),
        (
            dict(custom_hooks=[dict(type="EarlyStoppingHook", monitor="eval/knn_top1")]),
            "EarlyStoppingHook needs validation scores",
        ),
        (
            dict(default_hooks=dict(checkpoint=dict(save_best="eval/knn_top1"))),
            "save_best needs validation scores",
        ),
    ],
)
def test_what_mm_configs_often_say_and_pretraining_cannot_do_is_named(shipped, change, problem):
    cfg = deepcopy(shipped)
    cfg.merge_from_dict(change)
    with pytest.raises(UserError, match=problem):
        check_config(cfg)


def test_options_of_the_wrapper_do_not_bring_mmengines_own(shipped):
    """Its training step calls the method in another way."""
    for options in (
        {"model_wrapper_cfg.find_unused_parameters": True},
        {"model_wrapper_cfg.type": "PretrainDDP"},
        {"model_wrapper_cfg": None},
    ):
        cfg = load_config(shipped, options)
        set_runtime_defaults(cfg)
        assert MODEL_WRAPPERS.get(cfg.model_wrapper_cfg.type) is PretrainDDP
    with pytest.raises(UserError, match="did you mean 'find_unused_parameters'"):
        load_config(shipped, {"model_wrapper_cfg.find_unused_parameter": True})


def test_a_type_of_another_project_is_shown_with_its_name(shipped):
    with pytest.raises(UserError) as caught:
        load_config(shipped, {"model.backbone.type": "MixVisionTransformer"})
    assert "mmseg.MixVisionTransformer" in caught.value.remedy


class OnesOwn:
    """Takes out of its dicts what it pleases."""

    def __init__(self, norm_cfg=None, plan=None):
        pass


def test_dicts_inside_of_others_parts_are_left_to_them(shipped):
    """mm's backbones put ``requires_grad`` into a ``norm_cfg``, and a ``type`` need not be one."""
    cfg = deepcopy(shipped)
    norm = dict(type="BN", requires_grad=True)
    cfg.model.backbone = dict(_delete_=True, type=OnesOwn, norm_cfg=norm)
    cfg.custom_hooks = [
        dict(type=OnesOwn, plan=dict(type="linear")),
        dict(type="ProfilerHook", on_trace_ready=dict(type="log_trace", sort_by="cpu_time")),
    ]
    check_config(cfg)
    cfg.custom_hooks = [dict(type=OnesOwn, plam=3)]
    with pytest.raises(UserError, match="did you mean 'plan'"):
        check_config(cfg)


class HeadOfOnesOwn:
    """Has numbers of the same names as ours, and other rules."""

    def __init__(self, in_channels=3, margin=None, grid=None):
        pass


def test_numbers_of_ones_own_parts_are_left_to_them(shipped):
    cfg = deepcopy(shipped)
    cfg.model.head = dict(type=HeadOfOnesOwn, margin=0.0, grid=(7, 7))
    check_config(cfg)
    cfg.model.dense_head.out_channels = 0
    with pytest.raises(UserError, match="model.dense_head.out_channels is 0"):
        check_config(cfg)


def test_imports_that_an_option_names_are_made(shipped):
    with pytest.raises(UserError, match="not_there"):
        load_config(shipped, {"custom_imports.imports": ["not_there"]})
    options = {"custom_imports": dict(imports="not_there", allow_failed_imports=True)}
    assert load_config(shipped, options).custom_imports.imports == "not_there"


def test_the_parts_that_pretraining_needs_are_the_default(shipped):
    cfg = deepcopy(shipped)
    assert "type" not in cfg.train_cfg and "constructor" not in cfg.optim_wrapper
    cfg.vis_backends = [dict(type="LocalVisBackend")]
    check_config(cfg)
    set_runtime_defaults(cfg)
    assert cfg.train_cfg.type == "PretrainLoop"
    assert cfg.optim_wrapper.constructor == "TrainableParameters"


def test_a_config_anywhere_inherits_from_shipped_ones(tmp_path, shipped, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.py"
    file.write_text(f'_base_ = ["densessl::{CONFIG}"]\ntrain_cfg = dict(max_epochs=7)\n')
    cfg = load_config(file)
    assert cfg.train_cfg.max_epochs == 7 and cfg.model == shipped.model
    file.write_text('_base_ = "densessl::densecl/densecl_r18_1xb64-coslr-100e_foldr.py"')
    with pytest.raises(UserError, match="mine.py: .*config densessl::.*did you mean 'densecl_r18"):
        load_config(file)
    (tmp_path / "above.py").write_text('_base_ = "mine.py"')
    with pytest.raises(UserError, match="In .*mine.py: There is no config"):  # which has the fault
        load_config(tmp_path / "above.py")
    (tmp_path / "near.py").write_text("")
    with pytest.raises(UserError, match="no config densessl::near.py"):  # not what lies here
        load_config("densessl::near.py")


def test_a_misspelt_key_in_the_file_is_named(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text('train_cfg = dict(type="PretrainLoop", max_epoch=3)')
    with pytest.raises(UserError, match="'max_epoch' in train_cfg .did you mean 'max_epochs'"):
        load_config(file)


@pytest.mark.parametrize(
    "name", ["configs/densecl/densecl_r18_1xb64-coslr-100e_foldr.py", "densecl_r18"]
)
def test_a_misspelt_path_or_a_beginning_suggests_the_near_config(name):
    with pytest.raises(UserError, match=f"did you mean '{CONFIG.split('/')[1]}"):
        load_config(name)


@pytest.mark.parametrize(
    "text", ["model = dict(", "model = undefined", "model = dict(3)", "model = 1 / 0"]
)
def test_a_broken_file_is_reported_with_its_path(tmp_path, text):
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(UserError, match=f"{file} cannot be read"):
        load_config(file)


@pytest.mark.parametrize(
    "key",
    [
        "model.temperature.deeper",
        "train_dataloader.dataset.transform.views.7",
        "train_dataloader.dataset.transform.views.first",
        "param_scheduler.eta_min",
        "train_dataloader.dataset.transform.views.0.size",
    ],
)
def test_an_option_that_leads_nowhere_is_reported(shipped, key):
    with pytest.raises(UserError, match=key):
        load_config(shipped, {key: 1})


@pytest.mark.parametrize(
    "key, right",
    [
        ("epochs", "train_cfg.max_epochs"),
        ("batch_size", "train_dataloader.batch_size"),
        ("lr", "optim_wrapper.optimizer.lr"),
    ],
)
def test_a_key_that_belongs_further_down_is_shown_its_place(shipped, key, right):
    with pytest.raises(UserError, match=f"did you mean {right}"):
        load_config(shipped, {key: 3})


def test_an_option_below_a_name_says_that_it_has_no_keys(shipped):
    with pytest.raises(UserError, match="0 is 'moco_v2', which has no keys"):
        load_config(shipped, {"train_dataloader.dataset.transform.views.0.size": 50})


def test_classes_in_place_of_names_become_their_paths(shipped):
    cfg = deepcopy(shipped)
    cfg.model.backbone.type = ResNet
    cfg.custom_hooks = [dict(type=BrokenImagesHook)]
    loaded = load_config(cfg)
    assert loaded.model.backbone.type == "densessl.models.backbones.resnet.ResNet"
    assert loaded.custom_hooks[0].type == "densessl.engine.hooks.BrokenImagesHook"
    assert isinstance(MODELS.build(loaded.model.backbone), ResNet)


def test_other_images_are_taken_with_the_views_and_the_share_of_the_config(shipped, tmp_path):
    option = {"train_dataloader.dataset.max_broken": 0.3}
    dataset = load_config(shipped, option, images=tmp_path).train_dataloader.dataset
    assert (dataset.type, dataset.root, dataset.max_broken) == ("ImageFolder", str(tmp_path), 0.3)
    assert dataset.transform == shipped.train_dataloader.dataset.transform


def test_a_given_config_is_copied_and_checked(shipped):
    changed = load_config(shipped, {"model.temperature": 0.5})
    assert changed.model.temperature == 0.5 and shipped.model.temperature == 0.2
    cfg = Config(dict(model=dict(type="DenseCL", temprature=1)))
    with pytest.raises(UserError, match="temprature"):
        check_config(cfg)
