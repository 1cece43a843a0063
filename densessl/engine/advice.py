"""What to tell the user about an error that PyTorch or mmengine raised."""

import traceback

import torch
from mmengine.registry import build_from_cfg

from densessl.errors import UserError


def building_advice(error: BaseException) -> UserError | None:
    """A readable error when what the config names could not be built, else None."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    builds = [frame for frame in frames if frame.f_code is build_from_cfg.__code__]
    if not builds:
        return None
    kind = builds[-1].f_locals.get("obj_type", "something")
    place = traceback.extract_tb(error.__traceback__)[-1]
    return UserError(
        f"{getattr(kind, '__name__', kind)} cannot be built as the config has it: "
        f"{type(error).__name__}: {error} ({place.filename}, line {place.lineno})",
        "look up its arguments, and change them in the config or with --cfg-options",
    )


def package_advice(error: BaseException) -> UserError | None:
    """A readable error when what the config names needs a package that is not there, else None."""
    if not isinstance(error, ImportError):
        return None
    return UserError(
        f"Something that the config names needs a package that cannot be imported: {error}",
        "install it, or take what needs it out of the config",
    )


def memory_advice(error: BaseException) -> UserError | None:
    """A readable error when ``error`` means that memory has run out, else None."""
    text = str(error)
    signs = (
        "not enough memory",
        "can't allocate memory",
        "Cannot allocate memory",
        "killed by signal: Killed",
        "out of memory",
        "ALLOC_FAILED",  # cuBLAS and cuDNN
    )
    exhausted = isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        sign in text for sign in signs
    )
    if exhausted:
        return UserError(
            f"Out of memory: {text.splitlines()[0] if text else 'no memory left'}",
            "halve the micro-batch and double the accumulation, which keeps the training step the "
            "same: --cfg-options train_dataloader.batch_size=N optim_wrapper.accumulative_counts=M;"
            " or use smaller views (train_dataloader.dataset.transform.size), or fewer workers",
        )
    full = ("no space left on device", "bus error", "allocate shared memory")
    if any(sign in text.lower() for sign in full):
        return UserError(
            f"No room left: {text.splitlines()[0]}",
            "free some disk space; if the message speaks of shared memory, give more (docker run "
            "--shm-size=8g), or use fewer workers (--cfg-options train_dataloader.num_workers=0)",
        )
    return None


def peer_advice(error: BaseException) -> UserError | None:
    """A readable error when another process has ended while this one waited for it, else None."""
    signs = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
    if not (torch.distributed.is_initialized() and isinstance(error, RuntimeError)):
        return None
    if "gloo" not in str(error) or not any(sign in str(error) for sign in signs):
        return None
    return UserError(
        "Another process of this training has ended, so this one ends too.",
        "look for what that one said, above or below, and in torchrun's list of exit codes",
    )
