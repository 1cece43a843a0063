"""Hooks: broken images, losses that are no numbers, signals, throughput."""

import gc
import json
import logging
import os
import signal
from types import SimpleNamespace

import pytest
import torch

from densessl.datasets import ImageFolder
from densessl.engine import BrokenImagesHook, OptimizerStepHook, StopHook, ThroughputHook, pretrain
from densessl.engine.hooks import STOPPING, Stopped
from densessl.engine.message_hub import DeferredMessageHub
from densessl.engine.runner import PretrainRunner
from densessl.errors import UserError
from densessl.models import MoCo
from densessl.models.heads import DenseHead, GlobalHead
from densessl.models.methods.base import Method
from tests.models.tiny import build, optimizer_for
from tests.training import write_config, write_images


def scalars(work_dir) -> list[dict]:
    """The log of a run, a dict a line."""
    (file,) = work_dir.glob("*/vis_data/scalars.json")
    return [json.loads(line) for line in file.read_text().splitlines()]


def only_first_is_checked(self, samples=64):
    """Stands in for ``ImageDataset.check``, so that the loop itself meets the broken images."""
    return []


def break_images(folder, names) -> None:
    for name in names:
        (folder / f"{name:03}.jpg").write_bytes(b"broken")


@pytest.mark.slow
def test_broken_images_are_named_and_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ImageFolder, "check", only_first_is_checked)
    images = write_images(tmp_path / "images", 32)
    break_images(images, range(0, 14, 2))
    config = write_config(tmp_path / "config.py", images)
    pretrain(config, work_dir=tmp_path / "run", **{"train_dataloader.dataset.max_broken": 0.5})
    out = capsys.readouterr().out
    assert out.count("another image stands in for it") == 5  # the first five of seven
    assert out.count("jpg: not an image of a known format; another image") == 5
    assert "of the images seen so far 7 cannot be read" in out


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_broken_images_stop_the_run(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(ImageFolder, "check", only_first_is_checked)
    images = write_images(tmp_path / "images", 32)
    break_images(images, range(10))
    config = write_config(tmp_path / "config.py", images)
    with pytest.raises(
        UserError, match="10 of 32 images cannot be read, more than the share of 0.3"
    ):
        pretrain(
            config,
            work_dir=tmp_path / "run",
            **{
                "train_dataloader.dataset.max_broken": 0.3,
                "train_dataloader.num_workers": workers,
            },
        )


def test_images_count_once_however_often_they_are_seen():
    """Five of 40 are too many, also where they come up late."""

    class Images(list):
        max_broken, problem, path = 0.1, str, str

    loader = SimpleNamespace(dataset=Images(range(40)))
    runner = SimpleNamespace(train_dataloader=loader, logger=logging.getLogger(__name__))
    hook, index = BrokenImagesHook(), torch.arange(40)
    for _ in range(2):
        hook.after_train_iter(runner, 0, SimpleNamespace(index=index, broken=index * 0 - 1))
    with pytest.raises(UserError, match="5 of 40 images cannot be read"):
        late = SimpleNamespace(index=index[:5], broken=index[:5])
        hook.after_train_iter(runner, 0, late)


def test_an_error_in_a_worker_keeps_its_words(tmp_path, monkeypatch):
    """All images vanish after the check: the worker gives up, and its message has no traceback."""
    monkeypatch.setattr(ImageFolder, "check", only_first_is_checked)
    images = write_images(tmp_path / "images", 32)
    break_images(images, range(32))
    config = write_config(tmp_path / "config.py", images)
    with pytest.raises(UserError) as caught:
        pretrain(config, work_dir=tmp_path / "run", **{"train_dataloader.num_workers": 1})
    assert caught.value.problem.startswith("11 images in a row cannot be read")
    assert caught.value.remedy.startswith("check the folder")
    assert "Traceback" not in str(caught.value)


def poison(monkeypatch, from_step: int) -> None:
    """Makes every loss NaN from a step on."""
    original = Method.forward

    def forward(self, batch):
        figures = original(self, batch)
        if self.step >= from_step:
            figures["loss"] = figures["loss"] * torch.nan
        return figures

    monkeypatch.setattr(Method, "forward", forward)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, images, monkeypatch):
    poison(monkeypatch, from_step=3)
    config = write_config(tmp_path / "config.py", images)
    with pytest.raises(UserError, match="The loss is nan at step 4"):
        pretrain(config, work_dir=tmp_path / "run", **{"default_hooks.finite_loss.interval": 4})


@pytest.mark.slow
def test_nan_weights_are_never_saved(tmp_path, images, monkeypatch):
    """The loss breaks between two checks, and a checkpoint is due before the next one."""
    poison(monkeypatch, from_step=7)
    config = write_config(tmp_path / "config.py", images)
    with pytest.raises(UserError, match="The loss is nan before the checkpoint"):
        pretrain(
            config,
            work_dir=tmp_path / "run",
            **{"default_hooks.finite_loss.interval": 100, "default_hooks.checkpoint.interval": 1},
        )
    assert not list((tmp_path / "run").glob("*.pth*"))


@pytest.mark.parametrize("by_epoch, interval, kept", [(True, 1, "epoch_1"), (False, 4, "iter_12")])
@pytest.mark.parametrize("broken", ["backbone.layers.0.weight", "backbone.layers.1.running_var"])
def test_what_a_step_has_broken_is_not_saved(
    tmp_path, images, monkeypatch, by_epoch, interval, kept, broken
):
    """The last loss is a number, and the step after it breaks the state."""
    original = MoCo.after_optimizer_step

    def step(self):
        original(self)
        if self.step == 16:
            self.state_dict()[broken].fill_(torch.nan)

    monkeypatch.setattr(MoCo, "after_optimizer_step", step)
    config = write_config(tmp_path / "config.py", images)
    keep_one = dict(by_epoch=by_epoch, interval=interval, max_keep_ckpts=1)
    options = {f"default_hooks.checkpoint.{name}": value for name, value in keep_one.items()}
    with pytest.raises(UserError, match="The weights hold NaN or infinity, so no checkpoint"):
        pretrain(config, work_dir=tmp_path / "run", **options)
    assert [path.stem for path in (tmp_path / "run").glob("*.pth*")] == [kept]


def test_the_oldest_checkpoint_goes_when_the_new_one_is_there(tmp_path, images, monkeypatch):
    there = []
    original = PretrainRunner.save_checkpoint

    def save(self, *args, **kwargs):
        there.append(sorted(path.stem for path in (tmp_path / "run").glob("*.pth")))
        original(self, *args, **kwargs)

    monkeypatch.setattr(PretrainRunner, "save_checkpoint", save)
    config = write_config(tmp_path / "config.py", images)
    options = {"default_hooks.checkpoint.interval": 1, "default_hooks.checkpoint.max_keep_ckpts": 1}
    pretrain(config, work_dir=tmp_path / "run", **options)
    options["train_cfg.max_epochs"] = 3
    pretrain(config, work_dir=tmp_path / "run", resume=True, **options)
    assert there == [[], ["epoch_1"], ["epoch_2"]]
    assert [path.stem for path in (tmp_path / "run").glob("*.pth")] == ["epoch_3"]


def test_nothing_of_a_training_stays_in_the_process(tmp_path, images):
    config = write_config(tmp_path / "config.py", images)
    made = []
    for number in range(3):
        pretrain(config, work_dir=tmp_path / str(number), **{"train_cfg.max_steps": 1})
        weights = sum(type(each) is torch.nn.Parameter for each in gc.get_objects())
        made.append((weights, len(os.listdir("/proc/self/fd"))))
    assert made[1] == made[2]


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (GlobalHead, "the embeddings of all images are nearly the same"),
        (DenseHead, "the embeddings of cells follow from their place"),
    ],
)
@pytest.mark.parametrize("scale, warned", [(0.0, True), (1.0, False)])
def test_a_collapse_is_said_at_the_end_of_the_epoch(
    tmp_path, images, monkeypatch, capsys, head, said, scale, warned
):
    """A head without weights gives every image its bias."""
    original = head.forward
    monkeypatch.setattr(head, "forward", lambda self, x: original(self, x * scale))
    config = write_config(tmp_path / "config.py", images)
    pretrain(config, work_dir=tmp_path / "run", **{"train_cfg.max_epochs": 1})
    assert (said in capsys.readouterr().out) == warned


def test_a_method_is_told_its_step_and_how_many_there_will_be():
    method = build(MoCo, GlobalHead(12, (16,), 8), queue_size=8)
    wrapper = optimizer_for(method)
    loop = SimpleNamespace(total_steps=24)
    runner = SimpleNamespace(model=method, optim_wrapper=wrapper, train_loop=loop, iter=5)
    OptimizerStepHook().before_train(runner)
    assert (method.step, method.total_steps) == (5, 24)


def test_the_throughput_is_that_of_all_ranks(monkeypatch):
    monkeypatch.setattr("densessl.engine.hooks.get_world_size", lambda: 4)
    hub = DeferredMessageHub("throughput")
    for name, seconds in (("time", 0.5), ("data_time", 0.1)):
        hub.update_scalar(f"train/{name}", seconds)
    runner = SimpleNamespace(message_hub=hub)
    ThroughputHook().after_train_iter(runner, 0, SimpleNamespace(index=range(6)))
    assert hub.get_scalar("train/images_per_s").mean(1) == pytest.approx(4 * 6 / 0.5)


def test_signals_act_as_before_after_a_run(tmp_path, images, monkeypatch):
    before = [signal.getsignal(number) for number in STOPPING]
    config = write_config(tmp_path / "config.py", images)
    pretrain(config, work_dir=tmp_path / "run", **{"train_cfg.max_steps": 1})
    assert before == [signal.getsignal(number) for number in STOPPING]
    poison(monkeypatch, from_step=0)
    with pytest.raises(UserError):
        pretrain(config, work_dir=tmp_path / "other", **{"train_cfg.max_steps": 1})
    assert before == [signal.getsignal(number) for number in STOPPING]


def test_only_a_second_ctrl_c_stops_at_once(capfd):
    hook = StopHook()
    for _ in range(2):  # schedulers and torchrun both send one
        hook._note(signal.SIGTERM, None)
    assert capfd.readouterr().err.count("Stopping after this step") == 1
    hook = StopHook()
    hook._note(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        hook._note(signal.SIGINT, None)


def test_a_second_ctrl_c_waits_for_the_checkpoint(capfd):
    hook = StopHook()
    hook._note(signal.SIGINT, None)

    def save_now(steps, stopped):
        hook._note(signal.SIGINT, None)
        return "step_1.pth"

    with pytest.raises(Stopped) as stopped:
        hook.after_train_iter(SimpleNamespace(iter=0, save_now=save_now), 0)
    assert stopped.value.checkpoint == "step_1.pth"
    assert "The checkpoint is being written" in capfd.readouterr().err


def test_the_log_shows_what_the_issue_promises(tmp_path, images):
    config = write_config(tmp_path / "config.py", images)
    pretrain(config, work_dir=tmp_path / "run")
    line = scalars(tmp_path / "run")[-1]
    assert line["log(K+1)"] == pytest.approx(torch.tensor(9.0).log().item())  # a queue of 8
    assert line["images_per_s"] == pytest.approx(4 / line["time"])
    assert line["data_wait"] == pytest.approx(line["data_time"] / line["time"])
    assert line["step"] == 16 and line["epoch"] == 2
    assert line["loss"] == pytest.approx((line["global"] + line["dense"]) / 2)
