"""What a run leaves behind: learning rates, checkpoints and what they say about themselves."""

import hashlib
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from densessl.checkpoint import load_checkpoint
from densessl.engine import PretrainRunner, pretrain
from densessl.engine.compiling import compile_networks
from densessl.engine.config import load_config
from densessl.errors import UserError
from densessl.models import MoCo
from densessl.models.preprocessor import ViewPreprocessor
from tests.training import write_config


def learning_rates(checkpoint) -> tuple[float, float]:
    """The scaled rate that training began with, and the rate of the next epoch."""
    (group,) = load_checkpoint(checkpoint)["optimizer"]["param_groups"]
    return group["initial_lr"], group["lr"]


def test_the_learning_rate_is_scaled_by_all_images_of_a_step(tmp_path, images):
    config = write_config(tmp_path / "config.py", images)
    stop = {"train_cfg.max_steps": 1, "optim_wrapper.optimizer.lr": 0.3}
    checkpoint = pretrain(
        config, work_dir=tmp_path / "run", **stop, **{"optim_wrapper.accumulative_counts": 3}
    )
    assert learning_rates(checkpoint)[0] == pytest.approx(0.3 * 4 * 3 / 256)


@pytest.mark.parametrize("warm_up", [5, 26])
def test_the_schedule_is_a_warm_up_and_a_cosine_over_the_epochs_that_are_trained(
    tmp_path, images, capsys, warm_up
):
    config = write_config(tmp_path / "config.py", images, base="moco")
    checkpoint = pretrain(
        config,
        work_dir=tmp_path / "run",
        **{
            "train_cfg.max_epochs": 3,
            "train_cfg.max_steps": 17,  # into the third epoch of 8 steps
            "param_scheduler.0.end": warm_up,
        },
    )
    base, now = learning_rates(checkpoint)
    assert base == pytest.approx(0.001 * 4 / 256)
    risen = min(1, 0.01 + 0.99 * 17 / (warm_up - 1))
    assert now == pytest.approx(base * risen * (1 + math.cos(math.pi * 2 / 3)) / 2)
    warned = "warms up for 26 steps, and training has 24" in capsys.readouterr().out
    assert warned == (warm_up == 26)


def test_schedules_by_steps_end_with_the_epochs_too(tmp_path, images):
    config = write_config(tmp_path / "config.py", images)
    checkpoint = pretrain(
        config,
        work_dir=tmp_path / "run",
        train_cfg__max_steps=4,  # of 16
        param_scheduler=[dict(type="CosineAnnealingLR", by_epoch=False, eta_min=0)],
    )
    base, now = learning_rates(checkpoint)
    assert now == pytest.approx(base * (1 + math.cos(math.pi * 4 / 16)) / 2)


def test_a_warm_up_of_one_step_would_never_end(tmp_path, images):
    config = write_config(tmp_path / "config.py", images, base="moco")
    with pytest.raises(UserError, match="param_scheduler.0 warms up from 0 to 1: the rate would"):
        pretrain(config, work_dir=tmp_path / "run", param_scheduler__0__end=1)


@pytest.mark.slow
def test_a_checkpoint_says_what_it_is(tmp_path, images):
    config = write_config(tmp_path / "config.py", images)
    checkpoint = pretrain(config, work_dir=tmp_path / "run", seed=5)
    loaded = load_checkpoint(checkpoint)
    meta = loaded["meta"]
    assert meta["format"] == "densessl/1"
    assert meta["method"] == "DenseCL"
    assert meta["architecture"] == dict(type="TinyNet")
    assert meta["input"] == dict(
        mean=pytest.approx([123.675, 116.28, 103.53]),
        std=pytest.approx([58.395, 57.12, 57.375]),
        channel_order="RGB",
    )
    assert (meta["epoch"], meta["iter"], meta["step"], meta["seed"]) == (2, 16, 16, 5)
    assert {"torch", "torchvision", "onedl-mmengine"} <= meta["versions"].keys()
    names = "\n".join(sorted(path.name for path in images.iterdir()))
    assert meta["data"] == dict(count=32, sha256=hashlib.sha256(names.encode()).hexdigest())
    assert meta["order"] == dict(seed=5, images_per_step=4, epoch_steps=0)
    assert "TinyNet" in meta["cfg"] and "config" not in meta
    assert {"backbone.layers.0.weight", "teacher.backbone.layers.0.weight", "queue.features"} <= (
        loaded["state_dict"].keys()
    )
    frozen = len(loaded["optimizer"]["param_groups"][0]["params"])
    assert frozen == len([n for n in loaded["state_dict"] if is_student_parameter(n)])


def is_student_parameter(name: str) -> bool:
    buffer = ("running_mean", "running_var", "num_batches_tracked", "features", "pointer")
    return not name.startswith("teacher.") and not name.endswith(buffer)


@pytest.mark.slow
def test_a_crash_while_saving_leaves_the_old_checkpoint(tmp_path, images, monkeypatch):
    config = write_config(tmp_path / "config.py", images)
    first = pretrain(config, work_dir=tmp_path / "run", **{"train_cfg.max_steps": 2})
    before, save = first.read_bytes(), torch.save

    def half_a_save(obj, file, **options):
        save(obj, file, **options)
        raise ValueError("the power went")

    monkeypatch.setattr(torch, "save", half_a_save)
    with pytest.raises(ValueError, match="the power went"):
        pretrain(config, work_dir=tmp_path / "run", resume=True)
    assert first.read_bytes() == before
    assert (tmp_path / "run" / "last_checkpoint").read_text() == str(first)
    assert {path.name for path in (tmp_path / "run").glob("*.p*")} == {"config.py", first.name}
    monkeypatch.undo()
    assert pretrain(config, work_dir=tmp_path / "run", resume=True).name == "epoch_2.pth"


def test_the_weights_are_channels_last_and_the_teacher_is_not_optimized(tmp_path, images):
    config = write_config(tmp_path / "config.py", images)
    checkpoint = pretrain(config, work_dir=tmp_path / "run", **{"train_cfg.max_steps": 1})
    loaded = load_checkpoint(checkpoint)
    for name, tensor in loaded["state_dict"].items():
        if tensor.ndim == 4:
            assert tensor.is_contiguous(memory_format=torch.channels_last), name
    (group,) = loaded["optimizer"]["param_groups"]
    assert len(group["params"]) == sum(map(is_student_parameter, loaded["state_dict"]))


@pytest.mark.parametrize("kept, there, files", [(-1, 0, 3), (2, 0, 4), (2, 1, 3)])
def test_room_is_asked_for_the_checkpoints_to_come(tmp_path, monkeypatch, kept, there, files):
    asked = []
    for number in range(there):
        (tmp_path / f"epoch_{number}.pth").touch()
    monkeypatch.setattr(
        "densessl.engine.runner.check_free_space", lambda *args: asked.append(args[1])
    )
    model = nn.Linear(3, 4)  # 16 numbers, and two moments of each
    cfg = dict(default_hooks=dict(checkpoint=dict(max_keep_ckpts=kept)))
    PretrainRunner.check_space(SimpleNamespace(model=model, cfg=cfg, work_dir=tmp_path))
    assert asked == [files * 3 * 16 * 4]


def test_a_checkpoint_knows_the_size_of_its_last_views(tmp_path, images):
    config = write_config(tmp_path / "config.py", images)
    sizes = [(0, 32), (1, 40), (9, 64)]
    for steps, side in ((7, 32), (8, 32), (9, 40), (16, 40)):  # of 8 an epoch, 2 epochs
        checkpoint = pretrain(
            config,
            work_dir=tmp_path / f"run{steps}",
            train_cfg__max_steps=steps,
            train_dataloader__dataset__transform__size=sizes,
        )
        assert load_checkpoint(checkpoint)["meta"]["view_size"] == side


def test_a_trial_of_few_steps_shows_its_loss_and_nothing_about_mmengine(tmp_path, images):
    config = write_config(tmp_path / "config.py", images)
    pretrain(config, work_dir=tmp_path / "run", train_cfg__max_steps=3)
    (log,) = (tmp_path / "run").glob("*/*.log")
    lines = log.read_text().splitlines()
    assert sum(" loss: " in line for line in lines) == 1
    assert not [line for line in lines if "mmengine - WARNING" in line and "registry" in line]
    assert not [line for line in lines if "FileClient" in line or "HardDiskBackend" in line]


def test_a_config_object_and_underscored_keywords_do_as_well(tmp_path, images):
    cfg = load_config(write_config(tmp_path / "config.py", images))
    checkpoint = pretrain(
        cfg, images=images, work_dir=tmp_path / "run", train_cfg__max_steps=1, model__momentum=0.5
    )
    assert checkpoint.name == "step_1.pth"
    assert "momentum=0.5" in load_checkpoint(checkpoint)["meta"]["cfg"]
    assert cfg.model.momentum == 0.99


@pytest.mark.slow
def test_compiling_leaves_the_keys_of_the_checkpoint_alone(tmp_path, images):
    config = write_config(tmp_path / "config.py", images)
    states = []
    for name, options in (("plain", False), ("compiled", dict(backend="eager"))):
        path = pretrain(
            config,
            work_dir=tmp_path / name,
            precision="fp32",
            compile=options,
            train_cfg__max_steps=2,
        )
        states.append(load_checkpoint(path)["state_dict"])
    plain, compiled = states
    assert plain.keys() == compiled.keys()
    assert all(torch.allclose(plain[name], compiled[name], atol=1e-6) for name in plain)


def test_incomplete_batches_are_refused(tmp_path, images):
    config = write_config(tmp_path / "config.py", images)
    with pytest.raises(UserError, match="drop_last is False"):
        pretrain(config, work_dir=tmp_path / "run", train_dataloader__drop_last=False)


def test_compiling_takes_networks_and_augmentation():
    head = dict(type="GlobalHead", in_channels=512, out_channels=8)
    method = MoCo(dict(type="ResNet", depth=18), head, 16, data_preprocessor=ViewPreprocessor())
    compile_networks(method, dict(backend="eager"))
    for part in (method.backbone, method.teacher.head, method.data_preprocessor.batched):
        assert part._compiled_call_impl is not None


def test_two_runs_of_one_second_have_a_log_each(tmp_path, images, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda *_: "20260101_000000")
    config = write_config(tmp_path / "config.py", images)
    for name in ("one", "two"):
        pretrain(config, work_dir=tmp_path / name, train_cfg__max_steps=1)
        (log,) = (tmp_path / name).glob("*/*.log")
        assert "Epoch(train) [1][1/8]" in log.read_text()


def test_networks_with_syncbn_are_not_compiled():
    """On a GPU it picks rows by a mask in every layer, which ends the graph there."""
    head = dict(type="GlobalHead", in_channels=512, out_channels=8)
    method = MoCo(dict(type="ResNet", depth=18), head, 16, data_preprocessor=ViewPreprocessor())
    method.backbone = nn.SyncBatchNorm.convert_sync_batchnorm(method.backbone)
    compile_networks(method, dict(backend="eager"))
    assert method.backbone._compiled_call_impl is None
    assert method.head._compiled_call_impl is not None


@pytest.mark.slow
def test_a_config_that_names_another_collate_still_trains(tmp_path, images):
    """One that an earlier version wrote names PyTorch's, which takes no plain numbers."""
    config = write_config(tmp_path / "config.py", images)
    path = pretrain(
        config,
        work_dir=tmp_path / "run",
        train_cfg__max_steps=1,
        train_dataloader__collate_fn=dict(type="default_collate"),
    )
    assert path.name == "step_1.pth"
