"""The installer's checks; the installation itself is what every run of `make` does."""

import importlib.util
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


def test_missing_headers_are_told(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: "/usr/bin/c++")
    monkeypatch.setattr(bootstrap.sysconfig, "get_paths", lambda: dict(include="/nowhere"))
    assert "python3-dev" in message(bootstrap.check_compiler)


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
