"""Reading and writing checkpoint files: nothing in a file is executed, nothing is written halfway.

A checkpoint is a pickle, and a pickle can run code. Every file is therefore read with torch's
``weights_only`` reader and a short list of harmless types, unless the caller trusts the file.
"""

import argparse
import difflib
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from densessl.errors import UserError
from densessl.files import examples, open_atomically, readable_size

CHECKPOINT_FORMAT = "densessl/1"  # ``meta.format`` of what training writes
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".tar", ".ckpt", ".bin", ".pkl", ".torch", ".safetensors")
# What torch.load raises for one damage or another, seen by cutting and altering files.
READ_ERRORS = (
    SafetensorError,
    EOFError,
    RuntimeError,
    KeyError,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    UnicodeDecodeError,
    ImportError,
    OSError,
    pickle.UnpicklingError,
    struct.error,
)
# What torch's reader says when a file asks for a function or class outside the list.
CODE_REFUSED = re.compile(r"GLOBAL|call reduce|Can only (create|build)|persistent_load")
TRUST_REMEDY = (
    "If you know where the file comes from and trust its author, tools/convert.py reads it with "
    "--trust (from Python: trust=True) and writes the weights alone. That uses Python's full "
    "unpickler: whatever code the file contains then runs on this machine with your rights. "
    "Otherwise ask for the weights as a plain state dict."
)


def safe_globals() -> list:
    """What a checkpoint may contain besides tensors and Python's plain types.

    These are numpy arrays and scalars, ``argparse.Namespace`` (DINO's files keep their options in
    one) and mmengine's ``HistoryBuffer`` (the log inside every mmengine checkpoint).

    Returns:
        A list for ``torch.serialization.safe_globals``.
    """
    import numpy as np
    from mmengine.logging.history_buffer import HistoryBuffer

    statistics = ("min", "max", "mean", "current")

    def read_statistic(owner: Any, name: str) -> Callable:
        # A HistoryBuffer pickles its four methods through getattr. The real getattr would let a
        # file reach any function of any loaded module and plant it as a "statistic" to call later.
        if owner is HistoryBuffer and name in statistics:
            return getattr(owner, name)
        raise pickle.UnpicklingError(f"GLOBAL getattr({owner!r}, {name!r}) is not allowed")

    kinds = ("bool", "uint8", "uint32", "int32", "int64", "float16", "float32", "float64")
    multiarray = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
    # numpy 1 and 2 write the same two functions under different module names.
    rebuild = [
        (function, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name, function in (
            ("_reconstruct", multiarray._reconstruct),
            ("scalar", multiarray.scalar),
        )
    ]
    return [
        np.ndarray,
        np.dtype,
        *(type(np.dtype(kind)) for kind in kinds),
        *rebuild,
        argparse.Namespace,
        HistoryBuffer,
        (read_statistic, "builtins.getattr"),
    ]


def load_checkpoint(path: str | Path, trust: bool = False, map_location: Any = "cpu") -> dict:
    """Reads a checkpoint file without executing anything it contains.

    ``meta["config"]`` is always dropped: mmengine's ``Runner.resume`` would execute it as Python.
    mmengine's own checkpoints keep their configuration as text under ``meta["cfg"]``, which stays.

    Args:
        path: The file.
        trust: Read with Python's full unpickler. The file can then run any code it likes.
        map_location: As for ``torch.load``.

    Returns:
        The checkpoint.

    Raises:
        UserError: The file is missing, empty, truncated, no checkpoint, or contains code.
    """
    path = Path(path).expanduser()
    _check_is_file(path)
    try:
        if path.suffix == ".safetensors":
            checkpoint = load_file(path)
        elif trust:
            checkpoint = torch.load(path, map_location=map_location, weights_only=False)
        else:
            with torch.serialization.safe_globals(safe_globals()), warnings.catch_warnings():
                # A plain pickle is refused in a moment; torch's remark on its protocol is noise.
                warnings.filterwarnings("ignore", message="Detected pickle protocol")
                checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except torch.OutOfMemoryError:  # a RuntimeError too, but no fault of the file
        raise
    except READ_ERRORS as error:
        raise _explain(path, error, trust) from error
    if not isinstance(checkpoint, dict) or not checkpoint:
        raise UserError(
            f"{path} is no checkpoint: it holds {_article(type(checkpoint).__name__)}"
            f"{' without entries' if isinstance(checkpoint, dict) else ', not a dict'}.",
            "Give a file that training or tools/convert.py wrote, or a state dict.",
        )
    meta = checkpoint.get("meta")
    if isinstance(meta, dict):
        meta.pop("config", None)
    return checkpoint


def install_safe_loader() -> None:
    """Makes mmengine read every local checkpoint with :func:`load_checkpoint`.

    mmengine's own loader retries a refused file with the full unpickler. Afterwards
    ``Runner.resume``, ``load_from`` and ``init_cfg=dict(type="Pretrained")`` refuse such files.
    """
    from mmengine.runner import CheckpointLoader

    def load_from_local_file(filename: str, map_location: Any = None) -> dict:
        return load_checkpoint(filename, map_location=map_location)

    # "" is the prefix of every path without a scheme.
    CheckpointLoader.register_scheme("", load_from_local_file, force=True)


def save_atomically(obj: Any, path: str | Path) -> None:
    """``torch.save`` that leaves either the whole new file or what was there before.

    Args:
        obj: What to save.
        path: The file; its folder is created, an existing file is replaced.

    Raises:
        UserError: The file cannot be written (disk full, no permission).
    """
    with open_atomically(path) as file:
        torch.save(obj, file)


def _check_is_file(path: Path) -> None:
    if path.is_file():
        if path.stat().st_size == 0:
            raise UserError(
                f"{path} is empty (0 bytes).",
                "The program that wrote it was probably stopped, or the disk was full. Use an "
                "earlier checkpoint from the same folder, or write it again.",
            )
        return
    if path.is_dir():
        files = sorted(f.name for f in path.iterdir() if f.suffix in CHECKPOINT_SUFFIXES)
        raise UserError(
            f"{path} is a folder, not a checkpoint file.",
            f"Name one of those in it: {examples(files)}." if files else "Name the file itself.",
        )
    if not path.parent.is_dir():
        raise UserError(
            f"{path} does not exist, nor does its folder {path.parent}.",
            "Check the path; a relative one starts at the folder you are in.",
        )
    names = sorted(f.name for f in path.parent.iterdir() if f.is_file())
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    near = near or [name for name in names if Path(name).suffix in CHECKPOINT_SUFFIXES]
    raise UserError(
        f"{path} does not exist.",
        f"In that folder there is {examples(near, most=6)}." if near else "Check the path.",
    )


def _explain(path: Path, error: Exception, trust: bool) -> UserError:
    """The readable message for a file that torch could not read."""
    if isinstance(error, PermissionError):
        return UserError(f"You may not read {path}: {error.strerror}.", "Change its permissions.")
    if trust and isinstance(error, ImportError):
        return UserError(
            f"{path} holds objects of a package that is missing here: {error}.",
            "Install that package, or ask for the weights as a plain state dict.",
        )
    with open(path, "rb") as file:
        head = file.read(4)
    zipped, pickled = head.startswith(b"PK"), head[:1] == b"\x80"
    if not trust and isinstance(error, pickle.UnpicklingError) and CODE_REFUSED.search(str(error)):
        return UserError(
            f"{path} contains more than weights: reading it would run {_code_names(path, error)}. "
            "It was refused, and nothing in it was executed.",
            TRUST_REMEDY,
        )
    if not trust and ("legacy .tar" in str(error) or pickled and "Unsupported op" in str(error)):
        return UserError(
            f"{path} is a pickle in a form that cannot be read without running the code it may "
            "contain. It was refused, and nothing in it was executed.",
            TRUST_REMEDY,
        )
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if not any(name.endswith("data.pkl") for name in archive.namelist()):
                return UserError(
                    f"{path} is a zip archive, but not one that torch.save wrote.",
                    "Unpack it and give the checkpoint inside.",
                )
    if zipped or pickled or isinstance(error, SafetensorError):
        return UserError(
            f"{path} is damaged or was cut short: {readable_size(path.stat().st_size)} are there, "
            "and they do not make a whole checkpoint.",
            "Copy or download it again and compare the sizes, or use an earlier checkpoint.",
        )
    return UserError(
        f"{path} is no checkpoint: its first bytes are {head!r}, and torch.save writes others.",
        "Give a file that training or tools/convert.py wrote, or a state dict saved by torch.save.",
    )


def _code_names(path: Path, error: Exception) -> str:
    """The functions and classes that the file asks for."""
    names = re.findall(r"GLOBAL (\S+)", str(error))
    try:
        with torch.serialization.safe_globals(safe_globals()):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path) or names
    except READ_ERRORS:  # files before torch 1.6 cannot be listed; the message names the first one
        pass
    return examples(sorted(set(names)), most=6) if names else "code"


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
