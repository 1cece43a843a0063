"""Files and folders: written whole or not at all, with advice where that fails."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from densessl.errors import UserError

LOCK = ".lock"


def make_folder(path: str | Path) -> Path:
    """A folder, with those above it.

    Raises:
        UserError: It cannot be made.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"The folder {path} cannot be made: {error.strerror}.", "Choose another."
        ) from error
    if not os.access(path, os.W_OK):
        raise UserError(
            f"The folder {path} cannot be written to.", "Choose another, or change its permissions."
        )
    return path


@contextmanager
def locked(folder: Path, busy: UserError, patience: float = 0) -> Iterator[None]:
    """Holds the lock of a folder, for the block and for processes that are started in it and
    outlive this one.

    Args:
        folder: Must exist.
        busy: What to raise if another process holds it.
        patience: Seconds to wait for that process.

    Raises:
        UserError: ``busy``, or the lock cannot be opened.
    """
    until = time.monotonic() + patience
    try:
        file = open(folder / LOCK, "w")
    except OSError as error:
        raise UserError(
            f"{folder / LOCK} cannot be opened: {error.strerror}.",
            "Change its permissions, or choose another folder.",
        ) from error
    with file:
        os.set_inheritable(file.fileno(), True)
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the processes, however
            except BlockingIOError as error:
                if time.monotonic() > until:
                    raise busy from error
                time.sleep(0.2)
                continue
            except OSError:  # a file system without locks
                pass
            break
        yield


def check_free_space(folder: str | Path, needed_bytes: int, what: str) -> None:
    """Says before starting that the disk is too full.

    Args:
        folder: Where something is to be written; need not exist yet.
        needed_bytes: How much will be written there.
        what: What it is, as it should read in the message ("5 checkpoints").

    Raises:
        UserError: Less than ``needed_bytes`` are free.
    """
    existing = Path(folder).expanduser().absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise UserError(
            f"Not enough room on the disk of {folder}: {what} need {readable_size(needed_bytes)}, "
            f"{readable_size(free)} are free.",
            "Free some space, or choose a folder on another disk.",
        )


@contextmanager
def explained(path: str | Path) -> Iterator[None]:
    """Turns what the disk says while ``path`` is written into advice.

    Raises:
        UserError: The file cannot be written (disk full, over quota, no permission).
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch's writer may turn the disk's error into a RuntimeError raised while handling it.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise UserError(
            f"{path} could not be written: {cause.strerror or cause}.",
            "Check the room on the disk and the permissions of the folder, or choose another one.",
        ) from error


@contextmanager
def open_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a file beside ``path`` for writing and moves it onto ``path`` when the block succeeds.

    Args:
        path: The file to write; its folder is created.

    Yields:
        A binary file.

    Raises:
        UserError: See ``explained``.
    """
    path = Path(path)
    temporary = None
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files private; a checkpoint gets what open() would have given it.
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)
            os.replace(temporary, path)
            temporary = None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def write_json(content: Any, path: str | Path) -> None:
    """Writes ``content`` as JSON to a file that is whole or not there at all; see
    ``open_atomically``."""
    with open_atomically(path) as file:
        file.write(json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes, to tell one checkpoint from another of the same name."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def examples(names: Iterable, most: int = 3) -> str:
    """The first names of a list, for a message."""
    names = [str(name) for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def readable_size(number: int) -> str:
    """``number`` bytes in the unit that suits it."""
    value, units = float(number), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "bytes" else f"{value:.1f} {units[0]}"
