"""Where a figure comes from: the commit, the machine, the packages and the command."""

import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

CORE_PACKAGES = ("densessl", "torch", "torchvision", "timm", "onedl-mmengine", "opencv-python")
TRANSFER_PACKAGES = ("onedl-mmcv", "onedl-mmdetection", "onedl-mmsegmentation")


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def environment(packages: Iterable[str] = CORE_PACKAGES + TRANSFER_PACKAGES) -> dict[str, Any]:
    """Commit, hardware, versions, command and date of this process.

    Args:
        packages: Those whose versions matter.
    """
    return dict(
        commit=_commit(),
        hardware=_hardware(),
        versions={"python": platform.python_version(), **package_versions(packages)},
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():  # installed: the version says it
        return None
    try:
        run = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()


def _hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(x.partition(":")[2].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {cores()} cores"


def cores() -> int:
    """Cores that this process may use, which a scheduler or a container may have limited."""
    limited = hasattr(os, "sched_getaffinity")  # not on macOS
    return len(os.sched_getaffinity(0)) if limited else os.cpu_count() or 1
