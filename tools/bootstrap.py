"""Create a virtual environment with everything densessl needs: bootstrap.py [--venv .venv]

Standard library only, and written so that an old Python can still parse it and be told that it is
too old. Running it again takes a moment: a stamp in the environment records what was installed.
"""

import argparse
import ctypes
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NEEDED_GB = 9.0
CUDA = 13  # of the PyTorch that package indices give for the range in setup.py
# What OpenCV's wheel needs of a Linux that has no desktop, and Debian's packages with it.
LIBRARIES = {"libGL.so.1": "libgl1", "libgthread-2.0.so.0": "libglib2.0-0"}
BUILD_TOOLS = ["pip", "setuptools<81", "wheel", "ninja", "packaging", "psutil"]


def stop(problem, remedy):
    sys.exit("\nCannot install densessl: %s\nWhat to do: %s" % (problem, remedy))


def say(text):
    print("[install] " + text, flush=True)


def requirement(name):
    """The version range of a package, read from setup.py so that it is written once."""
    with open(os.path.join(ROOT, "setup.py"), encoding="utf-8") as handle:
        for line in handle:
            line = line.strip().strip(",").strip('"')
            if line.startswith(name) and line[len(name) : len(name) + 1] in "<>=":
                return line
    raise KeyError(name)


def check_python():
    if sys.version_info < (3, 10):
        stop(
            "Python %d.%d is too old, 3.10 or newer is needed." % sys.version_info[:2],
            "install a newer Python and name it: make PYTHON=python3.11 demo",
        )
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            stop(
                "this Python has no module '%s'." % module,
                "install it (Debian, Ubuntu: apt-get install python3-venv).",
            )


def check_disk(folder):
    probe = os.path.dirname(os.path.abspath(folder))
    for place, needed in ((probe, NEEDED_GB), (tempfile.gettempdir(), 3.0)):
        free = shutil.disk_usage(place).free / 1e9
        if free < needed:
            stop(
                "%.1f GB are free under %s, about %.0f GB are needed." % (free, place, needed),
                "free some space, put the environment elsewhere with make VENV=/other/disk/venv, "
                "or set TMPDIR to a larger disk.",
            )


def check_compiler():
    """mmcv's operators are compiled here, so a compiler and Python's headers must exist."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX") or "c++", "g++", "clang++")):
        stop("there is no C++ compiler.", "install one (Debian, Ubuntu: apt-get install g++).")
    header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
    if not os.path.exists(header):
        stop(
            "Python's headers are missing (%s)." % header,
            "install them (Debian, Ubuntu: apt-get install python3-dev).",
        )


def check_libraries():
    if sys.platform != "linux":
        return
    for library, package in LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            stop(
                "there is no %s, without which OpenCV cannot be imported." % library,
                "install it (Debian, Ubuntu: apt-get install %s)." % package,
            )


def has_gpu():
    """Whether PyTorch will find an NVIDIA GPU, as well as can be said before it is there."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    smi = shutil.which("nvidia-smi")
    if smi and subprocess.run([smi, "-L"], capture_output=True, check=False).returncode == 0:
        return True
    return os.path.isdir("/proc/driver/nvidia/gpus")


def cuda_of_torch(python):
    """CUDA's major version in the PyTorch that is or will be installed; 0 without CUDA."""
    if not has_module(python, "torch"):
        return CUDA
    probe = "import torch; print(torch.__version__, (torch.version.cuda or '0').split('.')[0])"
    result = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=False)
    lowest = re.search(r">=([\d.]+)", requirement("torch")).group(1)
    if result.returncode or not result.stdout.startswith(lowest + "."):
        return CUDA  # it will be replaced
    return int(result.stdout.split()[1])


def check_nvcc(cuda):
    """Beside a GPU mmcv's operators are compiled for it too, by the nvcc of PyTorch's CUDA."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")  # in PyTorch's order
    nvcc = os.path.join(home, "bin", "nvcc") if home else shutil.which("nvcc")
    nvcc = nvcc or "/usr/local/cuda/bin/nvcc"
    found = "there is no %s" % nvcc
    if os.path.exists(nvcc):
        result = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False)
        release = re.search(r"release (\d+)", result.stdout)
        if release is None or int(release.group(1)) == cuda:
            return
        found = "%s is of CUDA %s" % (nvcc, release.group(1))
    stop(
        "this machine has an NVIDIA GPU, for which mmcv is compiled with the nvcc of CUDA %d, as "
        "PyTorch was; %s." % (cuda, found),
        "install CUDA Toolkit %d and set CUDA_HOME to its folder; or install a PyTorch %s of your "
        "CUDA into the environment first; or put CUDA_VISIBLE_DEVICES= before the command, which "
        "compiles mmcv for the CPU alone: detectors then do not run on the GPU."
        % (cuda, requirement("torch")[len("torch") :]),
    )


def check_driver(python):
    """Only where PyTorch finds the GPU, with a driver of its CUDA, is mmcv compiled for it."""
    probe = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    if subprocess.run([python, "-c", probe], check=False).returncode:
        stop(
            "PyTorch does not find this machine's NVIDIA GPU; its driver may be too old for the "
            "CUDA of PyTorch (CUDA 13 asks for 580 or newer; nvidia-smi shows it).",
            "update the driver; or install a PyTorch %s of an older CUDA into the environment "
            "first; or put CUDA_VISIBLE_DEVICES= before the command, which compiles mmcv for the "
            "CPU alone." % requirement("torch")[len("torch") :],
        )


def fingerprint():
    digest = hashlib.sha256(sys.version.encode() + os.path.abspath(ROOT).encode())
    for name in ("setup.py", "tools/bootstrap.py", "densessl/models/backbones/norm_act.c"):
        with open(os.path.join(ROOT, name), "rb") as handle:
            digest.update(handle.read())
    return digest.hexdigest()


def pip_install(python, what, *args, **env):
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    result = subprocess.run(command + list(args), env=dict(os.environ, **env), check=False)
    if result.returncode:
        stop(
            "pip could not install %s (its message is above)." % what,
            "check the network or your package index (pip config list), then run the same command "
            "again: what is already installed stays.",
        )


def has_module(python, module):
    probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec(%r) is None)" % module
    return os.path.exists(python) and (
        subprocess.run([python, "-c", probe], check=False).returncode == 0
    )


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--venv", default=os.path.join(ROOT, ".venv"), help="where it goes")
    venv_dir = os.path.abspath(parser.parse_args(argv).venv)
    check_python()
    python = os.path.join(venv_dir, "bin", "python")
    stamp = os.path.join(venv_dir, "densessl-installed")
    if os.path.exists(python) and os.path.exists(stamp):
        with open(stamp, encoding="utf-8") as handle:
            if handle.read() == fingerprint():
                return
    started = time.time()
    with_mmcv = has_module(python, "mmcv")
    if not with_mmcv:
        check_compiler()
        cuda = cuda_of_torch(python)
        if cuda and has_gpu():
            check_nvcc(cuda)
    if not has_module(python, "cv2"):
        check_libraries()
    if not has_module(python, "torch"):
        check_disk(venv_dir)
    if not has_module(python, "pip"):  # nor where creating it was stopped
        say("creating %s" % venv_dir)
        import venv

        venv.create(venv_dir, with_pip=True)
    pip_install(python, "the build tools", "--upgrade", *BUILD_TOOLS)
    say("PyTorch (a download of several GB the first time)")
    pip_install(python, "PyTorch", requirement("torch"), requirement("torchvision"))
    if not with_mmcv:
        say(
            "mmcv: its operators are compiled from source the first time, which takes a quarter of "
            "an hour on two cores and prints nothing; later installations reuse the result"
        )
        if cuda and has_gpu():
            check_driver(python)
        # Those that a scheduler leaves to this process; nvcc takes a gigabyte and more for each.
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else [0, 1]
        jobs = str(min(len(cores), 16))
        flags = os.environ.get("CFLAGS", "-g0 -O1")
        pip_install(
            python,
            "mmcv",
            "--no-build-isolation",
            requirement("onedl-mmcv"),
            MMCV_WITH_OPS="1",
            MAX_JOBS=os.environ.get("MAX_JOBS", jobs),
            CFLAGS=flags,
        )
    say("densessl, mmdet, mmseg and the rest")
    pip_install(python, "densessl", "--no-build-isolation", "-e", ROOT + "[dev]")
    with open(stamp, "w", encoding="utf-8") as handle:
        handle.write(fingerprint())
    say("done in %.0f s; use it with: . %s/bin/activate" % (time.time() - started, venv_dir))


if __name__ == "__main__":
    main()
