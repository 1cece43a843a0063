"""Pretraining from a config: the checks before, the run, and the checkpoint it leaves."""

import gc
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.registry import FUNCTIONS, DefaultScope

from densessl.checkpoint import install_safe_loader
from densessl.engine.advice import building_advice, memory_advice, package_advice, peer_advice
from densessl.engine.config import load_config, set_runtime_defaults
from densessl.engine.hooks import STOPPING, Stopped, method_of
from densessl.engine.runner import PretrainRunner
from densessl.engine.schedule import check_schedules
from densessl.errors import UserError
from densessl.files import locked, make_folder
from densessl.memory import keep_freed_memory
from densessl.registry import DATASETS, MODELS
from densessl.suggest import did_you_mean

# Seconds in which the data workers of a killed training notice, and let its lock go.
PATIENCE = 10
# What each launcher leaves in the environment of the processes it starts, and its program.
LAUNCHERS = {
    "pytorch": ("LOCAL_RANK", "torchrun"),
    "slurm": ("SLURM_PROCID", "srun"),
    "mpi": ("OMPI_COMM_WORLD_LOCAL_RANK", "mpirun"),
}


@FUNCTIONS.register_module()
def obey_parent_only(worker_id: int) -> None:
    """Data loader workers outlive signals sent to the whole process group (Ctrl-C, torchrun,
    Slurm): the main process needs them to finish its step. Its own SIGTERM ends them."""

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    for signum in {*STOPPING} - {signal.SIGTERM}:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=wait, daemon=True).start()


def pretrain(
    config: str | Path | Config,
    images: str | Path | None = None,
    work_dir: str | Path | None = None,
    resume: bool | str = False,
    precision: str | None = None,
    seed: int | None = None,
    launcher: str = "none",
    **overrides: Any,
) -> Path:
    """Pretrains a backbone on unlabelled images.

    Args:
        config: A config, or the path of one; shipped ones by their path below ``configs/``.
        images: A folder of images, searched in depth; replaces the config's data set.
        work_dir: Where logs and checkpoints go; by default ``work_dirs/<config name>``.
        resume: True for the latest checkpoint in ``work_dir`` if there is one, or a path.
        precision: "auto", "bf16" or "fp32"; None leaves it to the config.
        seed: Of everything random; None leaves it to the config.
        launcher: "none", "pytorch", "slurm" or "mpi".
        **overrides: Config keys; a dot inside a key may be written as two underscores, e.g.
            ``train_cfg__max_epochs=20``.

    Returns:
        Path of the last checkpoint.

    Raises:
        UserError: If something is wrong that the user can mend; before the first step where
            possible.
        Stopped: After a signal; a checkpoint was written.
    """
    options = {name.replace("__", "."): value for name, value in overrides.items()}
    if seed is not None:
        options["randomness.seed"] = seed
    cfg = load_config(config, options, images, precision)
    if not cfg.get("work_dir"):
        cfg.work_dir = f"work_dirs/{Path(cfg.filename or 'pretrain').stem}"
    if work_dir is not None:
        cfg.work_dir = str(work_dir)
    if launcher != "none":
        check_launcher(launcher)
        cfg.launcher = launcher
    # Whatever another Runner in this process has left behind as default scope.
    with DefaultScope.overwrite_default_scope("densessl"):
        try:
            return run(cfg, resume)
        finally:
            gc.collect()  # a runner and its hooks hold each other, and the weights


def run(cfg: Config, resume: bool | str) -> Path:
    """Checks ``cfg`` against the data and the disk, then trains; see ``pretrain``."""
    set_runtime_defaults(cfg)
    if cfg.get("randomness", {}).get("deterministic"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses without it
    check_schedules(cfg)
    install_safe_loader()
    keep_freed_memory()
    _set_resume(cfg, resume)
    try:
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        broken = dataset.check()
        cfg.model = MODELS.get(cfg.model.type).resolve(cfg.model, len(dataset))
        make_folder(cfg.work_dir)
        runner = PretrainRunner.from_cfg(cfg, dataset)
        runner.logger.info(f"{len(dataset)} images: {type(dataset).__name__}, {dataset.root}")
        for line in broken:
            runner.logger.warning(f"cannot read {line}")
        for line in (*dataset.warnings(), *method_of(runner).warnings(len(dataset))):
            runner.logger.warning(line)
        runner.check_space()
        with alone_in(Path(cfg.work_dir)) if is_main_process() else nullcontext():
            runner.train()
    except (UserError, Stopped):
        raise
    except Exception as error:
        kinds = (memory_advice, building_advice, package_advice, peer_advice)
        advice = next(filter(None, (kind(error) for kind in kinds)), None)
        if advice is None:
            raise
        raise advice from error
    barrier()
    # Without a CheckpointHook the latest one may be that which was resumed.
    current = runner.has_saved or runner.iter == runner.resumed_at
    last = [latest_checkpoint(cfg.work_dir) if current else None]
    broadcast_object_list(last)  # it is rank 0's
    return Path(last[0] or runner.save_now(runner.iter))


@contextmanager
def alone_in(work_dir: Path) -> Iterator[None]:
    """Keeps other trainings out of ``work_dir``, and clears away what a killed one left half
    written."""
    busy = UserError(
        f"Another training works in {work_dir}.",
        "wait until it has ended, end it, or give another --work-dir",
    )
    with locked(work_dir, busy, PATIENCE):
        for part in work_dir.glob("*.pth.part"):
            part.unlink()
        yield


def latest_checkpoint(work_dir: str) -> str | None:
    """What a run wrote last to ``work_dir``: what it noted, also if the folder was moved since, or
    its newest file if the note is lost."""
    folder = Path(work_dir)
    note = folder / "last_checkpoint"
    if note.is_file():
        noted = Path(note.read_text().strip())
        for file in (folder / noted.name, noted):  # the folder may be a copy
            if file.is_file():
                return str(file)
    files = [file for kind in ("epoch", "iter", "step") for file in folder.glob(f"{kind}_*.pth")]
    return str(max(files, key=lambda file: file.stat().st_mtime)) if files else None


def check_launcher(launcher: str) -> None:
    """Checks that this process is one of those that ``launcher`` starts.

    Raises:
        UserError: If it is not, or if it needs a GPU and there is none.
    """
    if launcher not in LAUNCHERS:
        raise UserError(
            f"There is no launcher '{launcher}'{did_you_mean(launcher, LAUNCHERS)}.",
            f"choose none, {', '.join(LAUNCHERS)}",
        )
    sign, program = LAUNCHERS[launcher]
    if sign not in os.environ:
        raise UserError(
            f"--launcher {launcher}, but {program} did not start this process ({sign} is not set).",
            f"start the same command with {program}, or leave --launcher out for one device",
        )
    if launcher != "pytorch" and not torch.cuda.is_available():
        raise UserError(
            f"--launcher {launcher} needs a GPU for each process.",
            "on CPUs use torchrun and --launcher pytorch",
        )
    if launcher == "mpi":
        os.environ["LOCAL_RANK"] = os.environ[sign]  # mmengine looks for it
        if "MASTER_ADDR" not in os.environ:
            raise UserError(
                "--launcher mpi needs the name of the first machine in MASTER_ADDR.",
                "mpirun -x MASTER_ADDR=HOST ...",
            )
    gpus, local_rank = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", 0))
    if launcher != "slurm" and torch.cuda.is_available() and local_rank >= gpus:
        raise UserError(
            f"{program} started more processes on this machine than the {gpus} GPUs it has.",
            "start as many as there are GPUs",
        )


def _set_resume(cfg: Config, resume: bool | str) -> None:
    latest = latest_checkpoint(cfg.work_dir)
    if not resume and cfg.get("resume"):
        resume = cfg.get("load_from") or True
    if not resume and latest:
        raise UserError(
            f"{cfg.work_dir} already holds a run (its latest checkpoint is {latest}).",
            "continue it with --resume, or give another --work-dir",
        )
    if isinstance(resume, str | Path) and str(resume) != "auto":
        if not Path(resume).is_file():
            raise UserError(f"There is no checkpoint {resume} to resume from.", "check the path")
        cfg.resume, cfg.load_from = True, str(resume)
    elif resume and (note := Path(cfg.work_dir, "last_checkpoint")).is_file() and not latest:
        raise UserError(
            f"{note} names {note.read_text().strip()}, and neither that nor another checkpoint is "
            "there.",
            "put it back, or begin anew in another --work-dir",
        )
    elif latest:
        cfg.resume, cfg.load_from = True, latest
    else:
        cfg.resume = False
