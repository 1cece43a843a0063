"""tools/train.py as a user calls it: the way through, and everything a user can do wrong."""

import errno
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from densessl.checkpoint import load_checkpoint
from densessl.datasets import ImageDataset
from densessl.models import DenseCL, build_backbone
from tests.training import REPO, write_config, write_images
from tools.train import main

SHIPPED = "configs/densecl/densecl_r18_1xb64-coslr-100e_folder.py"

SMALL = [SHIPPED, "--images", "{images}", "--cfg-options", "train_dataloader.batch_size=8"]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images", 32)


@pytest.fixture
def config(tmp_path, images) -> Path:
    return write_config(tmp_path / "config.py", images)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, images) -> Path:
    """A checkpoint after two steps."""
    folder = tmp_path_factory.mktemp("trained")
    config = write_config(folder / "config.py", images)
    options = ["--cfg-options", "train_cfg.max_steps=2"]
    assert main([str(config), "--work-dir", str(folder / "run"), *options]) == 0
    return folder / "run" / "step_2.pth"


class Refused:
    """Calls the tool with arguments that it must refuse, and reads what it says."""

    def __init__(self, capfd, work_dir: Path):
        self.capfd, self.work_dir = capfd, work_dir

    def __call__(self, *argv) -> str:
        """The message on stderr of a call that exits with code 2 and writes no checkpoint."""
        if "--work-dir" not in argv:
            argv = (*argv[:1], "--work-dir", self.work_dir, *argv[1:])
        self.capfd.readouterr()
        assert main([str(argument) for argument in argv]) == 2
        out, err = self.capfd.readouterr()
        assert "Traceback" not in out + err
        message = err[err.index("error: ") :]
        assert message.count("error: ") == 1 and "What to do: " in message
        assert not list(self.work_dir.glob("*.pth*"))
        return message


@pytest.fixture
def refused(capfd, tmp_path) -> Refused:
    return Refused(capfd, tmp_path / "run")


@pytest.mark.slow
def test_a_shipped_config_and_a_folder_of_images_give_a_backbone(tmp_path, images, capfd):
    options = "train_dataloader.batch_size=8 train_dataloader.dataset.transform.size=32"
    argv = f"{SHIPPED} --images {images} --work-dir {tmp_path} --seed 3 --precision fp32"
    assert main([*argv.split(), "--cfg-options", *options.split(), "train_cfg.max_epochs=1"]) == 0
    file = tmp_path / "epoch_1.pth"
    out = capfd.readouterr().out
    assert f"Checkpoint: {file}" in out and f"tools/convert.py {file}" in out
    loaded = load_checkpoint(file)
    assert loaded["meta"]["seed"] == 3 and loaded["meta"]["step"] == 4
    backbone = build_backbone(loaded["meta"]["architecture"])
    weights = {
        name.removeprefix("backbone."): value
        for name, value in loaded["state_dict"].items()
        if name.startswith("backbone.")
    }
    backbone.load_state_dict(weights)


@pytest.mark.parametrize("option", ["model", "custom_hooks=[dict(type='X',interval=2)]"])
def test_an_option_that_cannot_be_read_is_said(capsys, option):
    with pytest.raises(SystemExit) as stop:
        main([SHIPPED, "--cfg-options", option])
    message = capsys.readouterr().err
    assert stop.value.code == 2 and f"cannot read '{option}': give KEY=VALUE" in message


@pytest.mark.parametrize(
    "argv, words",
    [
        (["densecl/densecl_r81_1xb64-coslr-100e_folder.py"], "densecl_r18_1xb64-coslr-100e_folder"),
        ([SHIPPED, "--images", "{images}s"], "did you mean 'images'?"),
        ([SHIPPED, "--images", "{empty}"], "No images found in {empty}"),
        ([SHIPPED, "--images", "{images}/000.jpg"], "is a file, not a folder of images"),
        ([SHIPPED, "--cfg-options", "trian_cfg.max_epochs=3"], "did you mean 'train_cfg'?"),
        ([SHIPPED, "--cfg-options", "model.tempreature=.1"], "did you mean 'temperature'?"),
        ([SHIPPED, "--cfg-options", "model.type=DensCL"], "did you mean 'DenseCL'?"),
        (["{misspelt}"], "Unknown key 'max_epoch' in train_cfg"),
        ([SHIPPED, "--images", "{images}"], "batch of 64 images a step is larger than the data"),
        ([SHIPPED, "--images", "{images}", "--work-dir", "{misspelt}"], "cannot be made: File"),
        ([SHIPPED, "--launcher", "pytorch"], "torchrun did not start this process"),
        (["transfer/detection/fcos_fpn_small.py"], "run it with tools/transfer.py"),
        ([*SMALL, "model.backbone.depth=19"], "no ResNet of depth 19"),
        (
            [*SMALL, "train_dataloader.dataset.transform.views=1"],
            "MultiView cannot be built as the",
        ),
        ([SHIPPED, "--images", "{images}", "--resume", "{empty}/no.pth"], "no checkpoint {empty}/"),
    ],
)
def test_a_mistake_is_one_readable_message(tmp_path, images, refused, argv, words):
    names = dict(images=images, empty=tmp_path / "empty", misspelt=tmp_path / "misspelt.py")
    names["empty"].mkdir()
    names["misspelt"].write_text("train_cfg = dict(max_epoch=3)")
    message = refused(*(argument.format(**names) for argument in argv))
    assert words.format(**names) in message
    if "{images}" not in argv:  # nothing was found that could be trained on
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_some_broken_images_are_named_and_trained_without(tmp_path, capfd):
    images = write_images(tmp_path / "images", 32)
    for number in (1, 5, 9):
        (images / f"{number:03}.jpg").write_bytes(b"\xff\xd8 broken")
    config = write_config(tmp_path / "config.py", images)
    option = "train_dataloader.dataset.max_broken=.2"
    assert main([str(config), "--work-dir", str(tmp_path / "run"), "--cfg-options", option]) == 0
    out = capfd.readouterr().out
    for number in (1, 5, 9):
        assert f"cannot read {images / f'{number:03}.jpg'}" in out
    assert "of the images seen so far 3 cannot be read" in out
    assert (tmp_path / "run" / "epoch_2.pth").exists()


def test_too_many_or_only_broken_images_are_refused(tmp_path, refused):
    images = write_images(tmp_path / "images", 32)
    config = write_config(tmp_path / "config.py", images)
    for number in range(3):
        (images / f"{number:03}.jpg").write_bytes(b"")
    message = refused(config)
    assert "3 of 32 images cannot be read" in message and "share of 0.05" in message
    assert "002.jpg" in message and "max_broken" in message
    for path in images.iterdir():
        path.write_text("no image")
    assert "32 of 32 images cannot be read" in refused(config)


def test_a_queue_longer_than_the_data_is_warned_about(tmp_path, config, capfd):
    options = ["model.queue_size=64", "train_cfg.max_steps=1", f"work_dir={tmp_path / 'run'}"]
    assert main([str(config), "--cfg-options", *options]) == 0
    assert (tmp_path / "run" / "step_1.pth").exists()
    assert "the queue of 64 keys is long for 32 images" in capfd.readouterr().out


def test_resuming_from_what_is_no_checkpoint_is_refused(tmp_path, config, checkpoint, refused):
    file = tmp_path / "file.pth"
    whole = checkpoint.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "cut short" in refused(config, "--resume", file)
    file.write_text("weights")
    assert "is no checkpoint" in refused(config, "--resume", file)
    torch.save(dict(state_dict={}, meta={}), file)
    assert "cannot be resumed" in refused(config, "--resume", file)


def test_resuming_another_architecture_is_refused(tmp_path, images, checkpoint, refused):
    wider = write_config(tmp_path / "wider.py", images, extra='model["backbone"]["width"] = 16')
    message = refused(wider, "--resume", checkpoint)
    assert "belongs to another model" in message and "backbone.layers.3.weight" in message


class Payload:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_checkpoint_is_refused_and_not_executed(tmp_path, config, checkpoint, refused):
    mark, file = tmp_path / "executed", tmp_path / "evil.pth"
    torch.save(dict(load_checkpoint(checkpoint), extra=Payload(mark)), file)
    assert "mkdir" in refused(config, "--resume", file)
    file.write_bytes(pickle.dumps(Payload(mark)))
    assert "nothing in it was executed" in refused(config, "--resume", file)
    assert not mark.exists()


def test_code_in_the_config_of_a_checkpoint_is_not_executed(tmp_path, config, checkpoint):
    mark, file = tmp_path / "executed", tmp_path / "evil.pth"
    loaded = load_checkpoint(checkpoint)
    loaded["meta"]["config"] = f"import os; os.mkdir({str(mark)!r})"
    torch.save(loaded, file)
    argv = [str(config), "--work-dir", str(tmp_path / "run"), "--resume", str(file)]
    assert main([*argv, "--cfg-options", "train_cfg.max_steps=3"]) == 0
    assert not mark.exists()


def test_a_work_dir_with_a_run_is_left_alone(tmp_path, config, checkpoint, capfd):
    work_dir = tmp_path / "run"
    shutil.copytree(checkpoint.parent, work_dir)
    before = {p: p.read_bytes() for p in work_dir.rglob("*") if p.is_file()}
    (work_dir / "last_checkpoint").write_text(str(work_dir / checkpoint.name))
    before[work_dir / "last_checkpoint"] = (work_dir / "last_checkpoint").read_bytes()
    assert main([str(config), "--work-dir", str(work_dir)]) == 2
    assert "already holds a run" in capfd.readouterr().err
    assert before == {p: p.read_bytes() for p in work_dir.rglob("*") if p.is_file()}


def test_no_room_for_the_checkpoints_is_said_before_the_start(monkeypatch, config, refused):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    message = refused(config)
    assert "Not enough room on the disk" in message and "1.0 kB are free" in message


def test_checkpoints_that_are_there_need_no_more_room(monkeypatch, config, tmp_path, capfd):
    """They go as new ones come, so a resumed training needs room for one."""
    run = tmp_path / "run"
    command = [str(config), "--work-dir", str(run), "--cfg-options"]
    assert main([*command, "train_cfg.max_steps=2"]) == 0
    size = (run / "step_2.pth").stat().st_size
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 2 * size))
    assert main([*command, "train_cfg.max_steps=3", "--resume"]) == 2
    assert "Not enough room on the disk" in capfd.readouterr().err
    for name in ("epoch_1", "epoch_2", "epoch_3", "step_1"):
        shutil.copy(run / "step_2.pth", run / f"{name}.pth")
    assert main([*command, "train_cfg.max_steps=3", "--resume"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_is_reported(monkeypatch, config, refused, code):
    def full(*args, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(torch, "save", full)
    assert f"_2.pth could not be written: {os.strerror(code)}." in refused(config)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 4096 bytes. Error code 12 (Cannot allocate memory)"
        ),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
    ],
    ids=["cuda", "cpu", "worker"],
)
def test_out_of_memory_says_which_knob_to_turn(monkeypatch, config, refused, error):
    def loss(self, batch):
        raise error

    monkeypatch.setattr(DenseCL, "loss", loss)
    message = refused(config)
    assert "Out of memory" in message
    assert "batch_size" in message and "accumulative_counts" in message


def test_a_small_shared_memory_is_said(monkeypatch, config, refused):
    def loss(self, batch):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: Success (0)")

    monkeypatch.setattr(DenseCL, "loss", loss)
    message = refused(config)
    assert "No room left" in message and "--shm-size" in message and "num_workers" in message


def test_an_error_of_ours_is_not_dressed_up_as_the_users(monkeypatch, config, tmp_path):
    def loss(self, batch):
        raise RuntimeError("a bug")

    monkeypatch.setattr(DenseCL, "loss", loss)
    with pytest.raises(RuntimeError, match="a bug"):
        main([str(config), "--work-dir", str(tmp_path / "run")])


def test_a_loss_that_is_no_number_is_refused(config, refused):
    options = ["optim_wrapper.optimizer.lr=1e38", "default_hooks.finite_loss.interval=1"]
    message = refused(config, "--cfg-options", *options)
    assert "The loss is nan at step" in message and "lr=" in message


def test_ctrl_c_before_the_first_step_is_no_traceback(monkeypatch, config, tmp_path, capfd):
    def check(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageDataset, "check", check)
    assert main([str(config), "--work-dir", str(tmp_path / "run")]) == 130
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_signals_leave_a_checkpoint_and_resume_goes_on(config, tmp_path, capfd):
    """All go to the whole process group, workers included, as from a terminal or torchrun."""
    work_dir, steps = tmp_path / "run", []
    argv = [str(config), "--work-dir", str(work_dir), "--resume", "--cfg-options"]
    endless = ["train_dataloader.num_workers=2", "train_cfg.max_epochs=10000"]
    for signum, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)):
        process = subprocess.Popen(
            [sys.executable, str(REPO / "tools" / "train.py"), *argv, *endless],
            env={**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for line in process.stdout:
            if "Epoch(train)" in line:
                os.killpg(process.pid, signum)
                break
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        last = (work_dir / "last_checkpoint").read_text()
        assert "Traceback" not in err and f"Stopped. Checkpoint: {last}" in err
        steps.append(load_checkpoint(last)["meta"]["step"])
        assert [str(file) for file in work_dir.glob("step_*.pth")] == [last]  # not all of before
    assert 0 < steps[0] < steps[1] < steps[2]
    assert main([*argv, *endless[1:], f"train_cfg.max_steps={steps[2] + 9}"]) == 0
    assert f"step_{steps[2] + 9}.pth" in capfd.readouterr().out
