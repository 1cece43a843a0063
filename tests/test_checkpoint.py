"""Reading checkpoints executes nothing; writing them leaves no half file."""

import argparse
import os
import pickle
import resource
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner
from torch import nn

from densessl.checkpoint import install_safe_loader, load_checkpoint, save_atomically
from densessl.errors import UserError
from densessl.files import check_free_space


class TouchFile:
    """Unpickling it creates a file."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Reaches:
    """Unpickling it asks getattr for a name of HistoryBuffer."""

    def __init__(self, name: str):
        self.name = name

    def __reduce__(self):
        return getattr, (HistoryBuffer, self.name)


class Tiny(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs, mode="loss"):
        return {"loss": self.layer(inputs).mean()}


def make_runner(work_dir: Path, name: str, resume: str | None = None) -> Runner:
    torch.manual_seed(0)
    data = [{"inputs": torch.randn(2)} for _ in range(4)]
    return Runner(
        model=Tiny(),
        work_dir=str(work_dir),
        experiment_name=name,
        train_dataloader={
            "batch_size": 2,
            "dataset": data,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "collate_fn": {"type": "default_collate"},
        },
        optim_wrapper={"optimizer": {"type": "Adam", "lr": 0.1}},
        param_scheduler=[{"type": "CosineAnnealingLR", "T_max": 4, "by_epoch": True}],
        train_cfg={"by_epoch": True, "max_epochs": 1 if resume is None else 2},
        load_from=resume,
        resume=resume is not None,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A checkpoint as mmengine writes it, with optimizer, schedule and message hub."""
    folder = tmp_path_factory.mktemp("trained")
    make_runner(folder, "first").train()
    return folder / "epoch_1.pth"


@pytest.fixture
def safe_loader():
    before = CheckpointLoader._schemes.copy()
    install_safe_loader()
    yield
    CheckpointLoader._schemes = before


def problem(path: Path, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        load_checkpoint(path, **kwargs)
    return str(caught.value)


def test_mmengine_checkpoint_is_read_whole(trained):
    checkpoint = load_checkpoint(trained)
    reference = torch.load(trained, weights_only=False)
    assert checkpoint.keys() == reference.keys()
    for name, tensor in reference["state_dict"].items():
        assert torch.equal(checkpoint["state_dict"][name], tensor)
    history = checkpoint["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(history, HistoryBuffer)
    assert history.mean() == reference["message_hub"]["log_scalars"]["train/loss"].mean()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_code_is_refused_and_not_executed(tmp_path, zipped):
    mark, file = tmp_path / "executed", tmp_path / "evil.pth"
    content = {"state_dict": {"a": torch.zeros(1)}, "x": TouchFile(mark)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    message = problem(file)
    assert not mark.exists()
    assert "mkdir" in message and "--trust" in message and "nothing in it was executed" in message
    load_checkpoint(file, trust=True)
    assert mark.exists()  # so the payload works, and was held back above


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_plain_pickle_is_refused_and_not_executed(tmp_path, protocol):
    mark, file = tmp_path / "executed", tmp_path / "evil.pkl"
    file.write_bytes(pickle.dumps(TouchFile(mark), protocol=protocol))
    assert "nothing in it was executed" in problem(file)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["__init__", "register_statistics", "statistics", "__class__"])
def test_getattr_reaches_only_the_four_statistics(tmp_path, name):
    torch.save({"a": Reaches("mean")}, tmp_path / "good.pth")
    assert load_checkpoint(tmp_path / "good.pth")["a"] is HistoryBuffer.mean
    torch.save({"a": Reaches(name)}, tmp_path / "evil.pth")
    assert "contains more than weights" in problem(tmp_path / "evil.pth")


def test_plain_containers_of_others_are_read(tmp_path):
    """DINO keeps an argparse.Namespace; numpy 1 wrote its arrays under another module name."""
    content = {"args": argparse.Namespace(lr=0.1), "array": np.arange(3.0), "one": np.float32(2)}
    file = tmp_path / "other.pth"
    torch.save(content, file, _use_new_zipfile_serialization=False)
    today = file.read_bytes()
    of_numpy_1 = today.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert of_numpy_1 != today
    for written in (today, of_numpy_1):
        file.write_bytes(written)
        read = load_checkpoint(file)
        assert read["args"].lr == 0.1 and read["one"] == 2
        assert read["array"].tolist() == [0, 1, 2]


def test_damaged_and_foreign_files_are_told_apart(tmp_path, trained):
    whole = trained.read_bytes()
    files = {
        "empty": (b"", "is empty"),
        "half": (whole[: len(whole) // 2], "cut short"),
        "start": (whole[:10], "cut short"),
        "text": (b"hello, I am a text file", "is no checkpoint"),
        "html": (b"<html>404 not found</html>", "is no checkpoint"),
    }
    for name, (content, expected) in files.items():
        file = tmp_path / f"{name}.pth"
        file.write_bytes(content)
        assert expected in problem(file), name
        if name != "empty":
            assert expected in problem(file, trust=True), name
    torch.save([1, 2], tmp_path / "list.pth")
    assert "holds a list" in problem(tmp_path / "list.pth")


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.95])
def test_cut_old_format_is_damaged(tmp_path, cut):
    file = tmp_path / "old.pth"
    torch.save({"a": torch.zeros(1000)}, file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * cut)])
    assert "cut short" in problem(file)


def test_missing_file_suggests_near_names(tmp_path):
    torch.save({"a": 1}, tmp_path / "epoch_20.pth")
    assert "epoch_20.pth" in problem(tmp_path / "epoch_2.pth")
    assert "epoch_20.pth" in problem(tmp_path)
    assert "nor does its folder" in problem(tmp_path / "no" / "epoch_20.pth")


def test_resume_through_the_safe_loader(tmp_path, trained, safe_loader):
    runner = make_runner(tmp_path, "resumed", resume=str(trained))
    runner.train()
    assert runner.iter == 4 and runner.epoch == 2


def test_meta_config_is_never_executed(tmp_path, trained, safe_loader):
    mark, file = tmp_path / "executed", tmp_path / "evil.pth"
    code = f"open({str(mark)!r}, 'w').close()\n"
    checkpoint = torch.load(trained, weights_only=False)
    checkpoint["meta"]["config"] = code
    torch.save(checkpoint, file)
    make_runner(tmp_path / "work", "evil", resume=str(file)).train()
    assert not mark.exists()
    assert "config" not in load_checkpoint(file, trust=True)["meta"]
    CheckpointLoader.register_scheme(
        "", lambda f, map_location: torch.load(f, weights_only=False), force=True
    )
    make_runner(tmp_path / "work2", "evil2", resume=str(file)).train()
    assert mark.exists()  # without our loader it is executed


def test_pretrained_init_refuses_code(tmp_path, safe_loader):
    mark, file = tmp_path / "executed", tmp_path / "evil.pth"
    torch.save({"state_dict": {}, "x": TouchFile(mark)}, file)
    model = Tiny()
    model.init_cfg = {"type": "Pretrained", "checkpoint": str(file)}
    with pytest.raises(UserError, match="contains more than weights"):
        model.init_weights()
    assert not mark.exists()


def test_save_atomically_replaces_whole(tmp_path):
    file = tmp_path / "deep" / "a.pth"
    save_atomically({"a": 1}, file)
    save_atomically({"a": 2}, file)
    assert load_checkpoint(file) == {"a": 2}
    assert os.listdir(file.parent) == ["a.pth"]

    class Unpicklable:
        def __reduce__(self):
            raise KeyError("no")

    with pytest.raises(KeyError):
        save_atomically({"a": torch.zeros(10), "b": Unpicklable()}, file)
    assert load_checkpoint(file) == {"a": 2}
    assert os.listdir(file.parent) == ["a.pth"]


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        save_atomically({"a": 1}, tmp_path / "a.pth")
    finally:
        os.umask(before)
    assert (tmp_path / "a.pth").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit on file size")
def test_full_disk_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.pth"
    save_atomically({"a": 1}, file)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    try:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(UserError, match="could not be written"):
            save_atomically({"a": torch.zeros(10**6)}, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert load_checkpoint(file) == {"a": 1}
    assert os.listdir(tmp_path) == ["a.pth"]


def test_free_space(tmp_path):
    check_free_space(tmp_path / "new" / "folder", 1, "one byte")
    with pytest.raises(UserError, match="3 checkpoints need 1000.0 TB"):
        check_free_space(tmp_path / "new" / "folder", 10**15, "3 checkpoints")
