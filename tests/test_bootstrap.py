"""The installer's checks; the installation itself is what every run of `make` does."""

import importlib.util
import venv
from collections import namedtuple
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def bootstrap():
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "tools/bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_program(path, line):
    if not path.parent.exists():
        path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def message(call, *args):
    with pytest.raises(SystemExit) as stop:
        call(*args)
    text = str(stop.value)
    assert "What to do:" in text
    return text


def test_an_old_python_is_told(bootstrap, monkeypatch):
    version = namedtuple("version", "major minor micro")(3, 8, 1)
    monkeypatch.setattr(bootstrap.sys, "version_info", version)
    assert "Python 3.8 is too old" in message(bootstrap.check_python)


def test_a_python_without_venv_is_told(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap.importlib.util, "find_spec", lambda name: None)
    assert "python3-venv" in message(bootstrap.check_python)


def test_a_full_disk_is_told_before_starting(bootstrap, monkeypatch, tmp_path):
    usage = namedtuple("usage", "free")(2_000_000_000)
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda folder: usage)
    assert "2.0 GB are free" in message(bootstrap.check_disk, str(tmp_path / "venv"))


def test_a_missing_compiler_is_told(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    assert "no C++ compiler" in message(bootstrap.check_compiler)


def test_a_missing_library_of_opencv_is_told(bootstrap, monkeypatch):
    bootstrap.check_libraries()
    monkeypatch.setattr(bootstrap, "LIBRARIES", {"libnowhere.so.1": "libnowhere1"})
    assert "apt-get install libnowhere1" in message(bootstrap.check_libraries)
    monkeypatch.setattr(bootstrap.sys, "platform", "darwin")
    bootstrap.check_libraries()


def test_missing_headers_are_told(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: "/usr/bin/c++")
    monkeypatch.setattr(bootstrap.sysconfig, "get_paths", lambda: dict(include="/nowhere"))
    assert "python3-dev" in message(bootstrap.check_compiler)


@pytest.mark.parametrize(
    "release, words", [(None, "there is no"), ("12.8", "bin/nvcc is of CUDA 12")]
)
def test_a_missing_or_other_nvcc_is_told(bootstrap, monkeypatch, tmp_path, release, words):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    if release:
        write_program(tmp_path / "bin/nvcc", f"echo Cuda compilation tools, release {release}, V1")
    text = message(bootstrap.check_nvcc, 13)
    assert words in text and "the nvcc of CUDA 13" in text and "CUDA Toolkit 13" in text


def test_an_nvcc_of_the_same_major_version_is_taken(bootstrap, monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    write_program(tmp_path / "nvcc", "echo Cuda compilation tools, release 13.2, V13.2.1")
    bootstrap.check_nvcc(13)


def test_a_gpu_is_one_that_answers_and_is_not_hidden(bootstrap, monkeypatch, tmp_path):
    monkeypatch.setattr(bootstrap.os.path, "isdir", lambda path: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not bootstrap.has_gpu()
    write_program(tmp_path / "nvidia-smi", "exit 9")
    assert not bootstrap.has_gpu()
    write_program(tmp_path / "nvidia-smi", "exit 0")
    assert bootstrap.has_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not bootstrap.has_gpu()


def test_a_gpu_that_pytorch_does_not_find_is_told(bootstrap, monkeypatch):
    for code in (0, 1):
        result = namedtuple("result", "returncode")(code)
        monkeypatch.setattr(bootstrap.subprocess, "run", lambda *a, _r=result, **k: _r)
        if code:
            assert "driver" in message(bootstrap.check_driver, "python")
        else:
            bootstrap.check_driver("python")


def test_compilers_are_checked_before_anything_is_installed(bootstrap, monkeypatch, tmp_path):
    monkeypatch.setattr(bootstrap, "pip_install", lambda *a, **k: pytest.fail("installed"))
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    assert "C++ compiler" in message(bootstrap.main, ["--venv", str(tmp_path / "venv")])
    monkeypatch.setattr(bootstrap, "check_compiler", lambda: None)
    monkeypatch.setattr(bootstrap, "has_gpu", lambda: True)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert "the nvcc of CUDA 13" in message(bootstrap.main, ["--venv", str(tmp_path / "venv")])
    assert not (tmp_path / "venv").exists()


@pytest.mark.slow
def test_an_environment_that_was_stopped_before_pip_is_completed(bootstrap, monkeypatch, tmp_path):
    venv.create(tmp_path / "venv", with_pip=False)
    for check in ("check_compiler", "cuda_of_torch", "check_disk"):
        monkeypatch.setattr(bootstrap, check, lambda *args: None)

    def stop(*args, **env):
        raise StopIteration

    monkeypatch.setattr(bootstrap, "pip_install", stop)
    with pytest.raises(StopIteration):
        bootstrap.main(["--venv", str(tmp_path / "venv")])
    assert bootstrap.has_module(str(tmp_path / "venv/bin/python"), "pip")


def test_a_failing_pip_is_told(bootstrap, monkeypatch):
    failed = namedtuple("result", "returncode")(1)
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *args, **kwargs: failed)
    assert "pip could not install mmcv" in message(bootstrap.pip_install, "python", "mmcv", "x")


def test_versions_are_read_from_setup_py(bootstrap):
    assert bootstrap.requirement("torch") == "torch>=2.11,<2.12"
    assert bootstrap.requirement("onedl-mmcv").startswith("onedl-mmcv>=2.3.6")
    with pytest.raises(KeyError):
        bootstrap.requirement("nothing")


def test_a_finished_installation_is_left_alone(bootstrap, monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").touch()
    (tmp_path / "densessl-installed").write_text(bootstrap.fingerprint())
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *a, **k: pytest.fail("ran something"))
    bootstrap.main(["--venv", str(tmp_path)])
