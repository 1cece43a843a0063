"""A run that was stopped and resumed is the run that was never stopped, bit for bit."""

import os
import sys

import pytest
import torch
import torch.nn.functional as F

from densessl.checkpoint import load_checkpoint
from densessl.engine import hooks, pretrain
from densessl.engine.config import load_config
from densessl.engine.pretrain import alone_in, latest_checkpoint
from densessl.engine.recipe import differences, recipe_of
from densessl.errors import UserError
from densessl.models import DenseCL
from tests.training import TinyNet, write_config

SHIPPED = "densecl/densecl_r18_1xb64-coslr-100e_folder.py"


def states(checkpoint) -> dict:
    """Everything that training goes on from, flat."""
    loaded = load_checkpoint(checkpoint)
    flat = dict(loaded["state_dict"])
    for number, entry in loaded["optimizer"]["state"].items():
        flat |= {f"optimizer.{number}.{name}": value for name, value in entry.items()}
    for group in loaded["optimizer"]["param_groups"]:
        flat |= {f"group.{name}": torch.tensor(group[name]) for name in ("lr", "betas")}
    for name, value in loaded["param_schedulers"][0].items():
        flat[f"schedule.{name}"] = value
    return flat


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        same = torch.equal(value, other[name]) if torch.is_tensor(value) else value == other[name]
        assert same, name


@pytest.fixture
def totals(monkeypatch) -> list[int]:
    """How many steps the method is told of, a training."""
    told = []

    def follow(method, optimizer, total_steps):
        told.append(total_steps)
        return follow_steps(method, optimizer, total_steps)

    follow_steps = hooks.follow_steps
    monkeypatch.setattr(hooks, "follow_steps", follow)
    return told


@pytest.mark.slow
@pytest.mark.parametrize(
    "workers, accumulation, size", [(0, 1, 32), (2, 1, [(0, 24), (1, 32)]), (0, 2, 32)]
)
def test_resuming_inside_an_epoch_changes_nothing(
    tmp_path, images, totals, workers, accumulation, size
):
    """Two epochs of 8 steps (4 with accumulation), stopped inside both and between them."""
    options = {
        "train_dataloader.dataset.transform.size": size,
        "train_dataloader.num_workers": workers,
        "optim_wrapper.accumulative_counts": accumulation,
        "precision": "fp32",
    }
    config = write_config(tmp_path / "config.py", images)
    whole = pretrain(config, work_dir=tmp_path / "whole", **options)
    length = 8 // accumulation
    for stop in (3, length, length + 2):
        piece = pretrain(
            config,
            work_dir=tmp_path / "pieces",
            resume=True,
            **options,
            **{"train_cfg.max_steps": stop},
        )
        meta = load_checkpoint(piece)["meta"]
        assert (meta["epoch"], meta["order"]["epoch_steps"]) == divmod(stop, length)
        assert meta["iter"] == meta["step"] == stop
    resumed = pretrain(config, work_dir=tmp_path / "pieces", resume=True, **options)
    assert resumed.name == whole.name == "epoch_2.pth"
    assert_same(states(whole), states(resumed))
    assert totals == 5 * [2 * length]


def test_what_layers_draw_is_the_same_after_a_resume(tmp_path, images, monkeypatch):
    """As DropPath and Dropout do, from PyTorch's own generator."""
    plain = TinyNet.forward
    monkeypatch.setattr(TinyNet, "forward", lambda self, x: (F.dropout(plain(self, x)[0], 0.5),))
    config = write_config(tmp_path / "config.py", images)
    options = {"train_cfg.max_epochs": 1, "precision": "fp32"}
    whole = pretrain(config, work_dir=tmp_path / "whole", **options)
    pretrain(config, work_dir=tmp_path / "pieces", **options, **{"train_cfg.max_steps": 3})
    resumed = pretrain(config, work_dir=tmp_path / "pieces", resume=True, **options)
    assert_same(states(whole), states(resumed))


def test_a_finished_run_stays_finished(tmp_path, images):
    config = write_config(tmp_path / "config.py", images)
    options = {"train_cfg.max_steps": 3}
    first = pretrain(config, work_dir=tmp_path / "run", **options)
    written = first.stat().st_mtime_ns
    again = pretrain(config, work_dir=tmp_path / "run", resume=True, **options)
    assert again == first and first.stat().st_mtime_ns == written
    log = max((tmp_path / "run").glob("*/*.log"), key=lambda file: file.stat().st_mtime_ns)
    assert "there is nothing left to train" in log.read_text()


def test_a_resumed_run_without_a_checkpoint_hook_is_kept_too(tmp_path, images):
    config = write_config(tmp_path / "config.py", images)
    options = {"default_hooks.checkpoint": None}
    pretrain(config, work_dir=tmp_path / "run", **options, **{"train_cfg.max_epochs": 1})
    last = pretrain(config, work_dir=tmp_path / "run", resume=True, **options)
    assert load_checkpoint(last)["meta"]["step"] == 16


@pytest.mark.slow
def test_the_seed_of_the_checkpoint_goes_on(tmp_path, images):
    """Resuming without repeating --seed draws the same images and views as before."""
    config = write_config(tmp_path / "config.py", images)
    options = {"train_cfg.max_epochs": 1, "precision": "fp32"}
    whole = pretrain(config, work_dir=tmp_path / "whole", seed=7, **options)
    stop = {"train_cfg.max_steps": 3}
    pretrain(config, work_dir=tmp_path / "pieces", seed=7, **options, **stop)
    resumed = pretrain(config, work_dir=tmp_path / "pieces", resume=True, **options)
    assert_same(states(whole), states(resumed))


@pytest.mark.slow
def test_a_changed_batch_starts_the_epoch_again_and_says_so(tmp_path, images, totals, capsys):
    """What moves with the share done, as a teacher's momentum, ends with the last step then."""
    config = write_config(tmp_path / "config.py", images, extra="log_level = 'WARNING'")
    first = pretrain(config, work_dir=tmp_path / "run", **{"train_cfg.max_steps": 5})
    options = {"train_dataloader.batch_size": 8, "train_cfg.max_epochs": 1, "model.queue_size": 8}
    last = pretrain(
        write_config(tmp_path / "again.py", images),
        work_dir=tmp_path / "again",
        resume=str(first),
        **options,
    )
    meta = load_checkpoint(last)["meta"]
    assert meta["iter"] == 5 + 4 and meta["epoch"] == 1
    assert totals == [16, 9]
    assert "the images or the batch have changed: epoch 1 starts again" in capsys.readouterr().out


def test_averaged_weights_are_not_trained_on_without_their_hook(tmp_path, images):
    config, hooks = write_config(tmp_path / "config.py", images), [dict(type="EMAHook")]
    run = dict(work_dir=tmp_path / "run", train_cfg__max_steps=2)
    pretrain(config, **run, custom_hooks=hooks)
    run["train_cfg__max_steps"] = 3
    with pytest.raises(UserError, match="was trained with an EMAHook, and this config has none"):
        pretrain(config, **run, resume=True)
    assert pretrain(config, **run, resume=True, custom_hooks=hooks).name == "step_3.pth"


def test_a_longer_training_than_the_schedule_is_warned_about(tmp_path, images, capsys):
    config = write_config(tmp_path / "config.py", images)
    pretrain(config, work_dir=tmp_path / "run", **{"train_cfg.max_steps": 2})
    capsys.readouterr()
    pretrain(
        write_config(tmp_path / "longer.py", images),
        work_dir=tmp_path / "run",
        resume=True,
        **{"train_cfg.max_epochs": 3, "train_cfg.max_steps": 4},
    )
    words = "ends at epoch 2, and one of this training would end at epoch 3"
    assert words in capsys.readouterr().out


def test_what_changed_in_the_recipe_is_said_or_refused(tmp_path, images, capsys):
    config = write_config(tmp_path / "config.py", images)
    run = tmp_path / "run"
    pretrain(config, work_dir=run, train_cfg__max_steps=2)
    written = (run / "config.py").read_text()
    for options, words in (
        (
            dict(optim_wrapper__optimizer=dict(type="SGD", lr=0.1, _delete_=True)),
            "'AdamW' to 'SGD'",
        ),
        (dict(param_scheduler=[dict(type="LinearLR", end=2)]), "'CosineAnnealingLR' to None"),
    ):
        with pytest.raises(UserError, match=f"another recipe; .*{words}"):
            pretrain(config, work_dir=run, resume=True, train_cfg__max_steps=3, **options)
    assert (run / "config.py").read_text() == written  # that is what the message sends to
    capsys.readouterr()
    last = pretrain(
        config,
        work_dir=run,
        resume=True,
        train_cfg__max_steps=3,
        optim_wrapper__optimizer__lr=7,
        model__temperature=0.5,
        train_dataloader__dataset__transform__size=24,
    )
    out = capsys.readouterr().out
    assert "to 7, but optimizer and schedules stay the checkpoint's" in out
    assert "model.temperature from 0.2 to 0.5, transform.size from 32 to 24, from the next" in out
    assert load_checkpoint(last)["optimizer"]["param_groups"][0]["lr"] < 1e-5
    assert (run / "config.py").read_text() != written
    for rate, said in ((7, True), (1e-3, False)):  # against what was trained with
        options = dict(optim_wrapper__optimizer__lr=rate, model__temperature=0.5)
        pretrain(config, work_dir=run, resume=True, seed=9, train_cfg__max_steps=3, **options)
        out = capsys.readouterr().out
        assert ("but optimizer and schedules stay" in out) == said
        assert "the seed stays the checkpoint's, 0" in out


def test_the_same_recipe_in_other_words_is_no_change():
    plain = recipe_of(load_config(SHIPPED))
    spelt = load_config(SHIPPED)
    spelt.model.type, spelt.optim_wrapper.optimizer.type = DenseCL, torch.optim.AdamW
    spelt.model.backbone._scope_ = "densessl"
    assert differences(plain, recipe_of(load_config(spelt)), "x.pth") == []
    assert differences({}, plain, "x.pth") == []  # of a checkpoint from before
    spelt.model.data_preprocessor = dict(type="ViewPreprocessor")
    (line,) = differences(plain, recipe_of(load_config(spelt)), "x.pth")
    assert "model.data_preprocessor.type from None" in line


def test_what_else_decides_the_rates_is_said_not_to_be_taken():
    old, new = (
        load_config("pirl_r50_8xb32-coslr-800e_in1k"),
        load_config("pirl_r50_8xb32-coslr-800e_in1k"),
    )
    new.optim_wrapper.paramwise_cfg.norm_decay_mult = 0.5
    new.auto_scale_lr.base_batch_size = 64
    (line,) = differences(recipe_of(old), recipe_of(new), "x.pth")
    assert "auto_scale_lr.base_batch_size from 256 to 64" in line
    assert "paramwise_cfg.norm_decay_mult from 0.0 to 0.5, but optimizer and schedules stay" in line
    before = {part: recipe_of(old)[part] for part in ("model", "optimizer", "param_scheduler")}
    assert differences(before, recipe_of(old), "x.pth") == []  # written by an earlier version


def test_two_trainings_do_not_share_a_work_dir(tmp_path, images, monkeypatch):
    monkeypatch.setattr(sys.modules["densessl.engine.pretrain"], "PATIENCE", 0.5)
    config, run = write_config(tmp_path / "config.py", images), tmp_path / "run"
    run.mkdir()
    (run / "epoch_1.pth.part").touch()  # of one that was killed
    with alone_in(run):
        assert not list(run.glob("*.part"))
        with pytest.raises(UserError, match=f"Another training works in {run}"):
            pretrain(config, work_dir=run, train_cfg__max_steps=1)
    assert pretrain(config, work_dir=run, train_cfg__max_steps=1).exists()


def test_a_checkpoint_that_is_gone_is_missed(tmp_path, images):
    config, run = write_config(tmp_path / "config.py", images), tmp_path / "run"
    pretrain(config, work_dir=run, train_cfg__max_steps=1).unlink()
    with pytest.raises(UserError, match="names .*step_1.pth, and neither that nor another"):
        pretrain(config, work_dir=run, resume=True)


def test_an_exported_file_is_no_training(tmp_path, images):
    config = write_config(tmp_path / "config.py", images)
    exported = tmp_path / "exported.pth"
    torch.save(dict(state_dict={"a": torch.zeros(1)}, meta=dict(format="other/1")), exported)
    with pytest.raises(UserError, match="cannot be resumed"):
        pretrain(config, work_dir=tmp_path / "run", resume=str(exported))


def test_a_note_that_was_lost_is_made_up_for_by_the_newest_file(tmp_path):
    """The note is empty after a crash, or names a place that the folder was moved away from."""
    for age, name in ((0, "imagenet_resnet50.pth"), (20, "epoch_1.pth"), (10, "step_30.pth")):
        assert latest_checkpoint(str(tmp_path)) is None or age
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "before" / "epoch_1.pth"))
    assert latest_checkpoint(str(tmp_path)) == str(tmp_path / "epoch_1.pth")
    for note in ("", str(tmp_path / "before" / "epoch_2.pth")):
        (tmp_path / "last_checkpoint").write_text(note)
        assert latest_checkpoint(str(tmp_path)) == str(tmp_path / "step_30.pth")
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "epoch_1.pth"))
    assert latest_checkpoint(str(tmp_path)) == str(tmp_path / "epoch_1.pth")
