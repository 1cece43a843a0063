"""The comparison: the same data, heads and order of images; only the initialisation differs."""

import os
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from densessl.conversion.source import IMAGENET_INPUT
from densessl.errors import UserError
from densessl.files import check_free_space, make_folder, open_atomically, sha256_of, write_json
from densessl.labels.folders import check_folder
from densessl.transfer.finetune import configure
from densessl.transfer.finetune.data import read_data
from densessl.transfer.finetune.inits import (
    Init,
    check_inits,
    coverage_of,
    prepare_init,
    set_init_cfg,
    tensors_of,
)
from densessl.transfer.finetune.plan import (
    Run,
    alone_in,
    check_plan,
    check_request,
    open_plan,
    runs_of,
    text_hash,
)
from densessl.transfer.finetune.processes import run_all
from densessl.transfer.finetune.results import METRICS, collect
from densessl.transfer.report import write_report
from densessl.transfer.summary import verdict

OF_DATA = ("name", "classes", "train_images", "val_images", "metric_note", "labels_sha256")


def finetune(
    config: str | Path,
    inits: dict[str, str],
    work_dir: str | Path,
    seeds: list[int] = (0,),
    label_fractions: list[float] = (1.0,),
    data: str | Path | None = None,
    classes: list[str] | None = None,
    iterations: int | None = None,
    cfg_options: dict[str, Any] | None = None,
    jobs: int = 1,
    trust: bool = False,
) -> Path:
    """Fine-tunes one model from several initialisations and writes the comparison.

    Each job is a process of its own. Within a seed every initialisation gets the same labelled
    images in the same order and the same weights outside the backbone. A second call with the same
    arguments goes on where the first one stopped; more seeds, initialisations or smaller shares of
    the labels, after the earlier ones, are added.

    Args:
        config: A transfer config.
        inits: Name -> checkpoint (any that ``export_checkpoint`` reads, or an exported file),
            ``random``, or ``supervised`` (torchvision's weights, if they are at hand).
        work_dir: For everything that is written; must be new, or hold the same comparison.
        seeds: One job each.
        label_fractions: Shares of the labelled training images, in (0, 1].
        data: The labelled data; may be left out where the config names it.
        classes: The classes to use, see :func:`read_data`.
        iterations: Of each job, instead of the config's; the schedule is stretched to it.
        cfg_options: Dotted config keys to override.
        jobs: Jobs at the same time; several GPUs are shared out.
        trust: Read checkpoints with the full unpickler, see ``load_checkpoint``.

    Returns:
        Path of ``results.json``; beside it are ``report.html``, ``report.md`` and the pictures.

    Raises:
        UserError: Something cannot work; found before any training, except for a job that fails,
            which the results record.
        SystemExit: SIGINT (130) or SIGTERM (143) came; finished jobs are kept.
    """
    work_dir, options = Path(work_dir), dict(cfg_options or {})
    seeds, fractions = list(seeds), list(label_fractions)
    check_request(inits, seeds, fractions)
    files = check_inits(inits)
    cfg = configure.load_config(config, options)
    folder = _data_folder(cfg, data)
    request = dict(
        config=Path(config).name,
        config_text=text_hash(cfg.pretty_text),
        inits={name: [inits[name], file and sha256_of(file)] for name, file in files.items()},
        seeds=seeds,
        label_fractions=fractions,
        iterations=iterations,
        classes=classes,
    )
    if cfg.transfer.data != "any":  # data of one's own may move: their labels tell
        request["data"] = None if folder is None else str(folder)
    with alone_in(work_dir):
        if (work_dir / "runs").exists():
            check_plan(work_dir, request)
        else:
            open_plan(work_dir, request)
        batch_note = configure.set_batch(cfg, options)
        # Not in the text: an option that repeats the config's own value changes how these are set.
        request["images_a_step"] = cfg.train_dataloader.batch_size
        request["learning_rate"] = cfg.optim_wrapper.optimizer.get("lr")
        if iterations is not None:
            configure.set_iterations(cfg, iterations, options)
        labelled = _set_data(cfg, folder, classes, work_dir)
        facts = dict(
            labels_sha256=labelled["labels_sha256"],
            classes=labelled["classes"],
            train=labelled["train_images"],
            val=labelled["val_images"],
        )
        request["found"] = facts
        check_plan(work_dir, request)

        framework = "mmseg" if cfg.transfer.task == "segmentation" else "mmdet"
        sizes = sum(file.stat().st_size for file in files.values() if file is not None)
        check_free_space(work_dir, 3 * sizes, "the exported and the fine-tuned weights")
        prepared = [
            prepare_init(name, inits[name], file, work_dir / "inits", framework, trust)
            for name, file in files.items()
        ]
        _fit_backbone(cfg, prepared, options)
        loaded = check_loading(cfg, prepared)
        open_plan(work_dir, request)  # what cannot be loaded does not become part of it

        print(f"{cfg.transfer.title}: {batch_note}.", flush=True)
        print(
            f"Data: {labelled['name']}, {labelled['train_images'] or '?'} images to train on, "
            f"{labelled['val_images'] or '?'} to evaluate on.",
            flush=True,
        )
        for init in prepared:
            print(f"Initialisation {init.name}: {init.source}, {loaded[init.name]}", flush=True)

        runs = list(runs_of(list(inits), seeds, fractions))
        by_name = {init.name: init for init in prepared}

        def write_results() -> dict:
            content = collect(cfg, config, labelled, prepared, loaded, runs, work_dir)
            write_json(content, work_dir / "results.json")
            return content

        def start(run: Run) -> Path:
            return _write_job(cfg, run, by_name[run.init], _shared_input(prepared), work_dir)

        run_all(runs, start, max(1, jobs), write_results)
        results = write_results()
        write_report([results], work_dir, cfg.transfer.title, [work_dir])
        print(f"{verdict(results)}\nReport: {work_dir / 'report.html'}", flush=True)
        return work_dir / "results.json"


def _data_folder(cfg: Config, data: str | Path | None) -> Path | None:
    if data is not None:
        return check_folder(data)
    if cfg.transfer.data == "any":
        raise UserError(
            "This config takes data of yours, and none was given.", "Add --data FOLDER."
        )
    return None


def _set_data(
    cfg: Config, folder: Path | None, classes: list[str] | None, work_dir: Path
) -> dict[str, Any]:
    """Puts the data into the config; returns what the results say about it."""
    if cfg.transfer.data == "any":
        found = read_data(folder, cfg.transfer.task, work_dir / "data", classes)
        configure.fit_data(cfg, found)
        return {fact: getattr(found, fact) for fact in OF_DATA}
    if classes:
        raise UserError(
            "--classes does not go with this config: its data set has fixed classes.",
            "Leave it out, or take one of the configs named small.",
        )
    if folder is not None:
        configure.move_data_root(cfg, folder)
    missing = configure.missing_files(cfg)
    if missing:
        raise UserError(
            f"The data of this config is not all there: {', '.join(missing[:4])} does not exist.",
            f"--data must be {cfg.transfer.data}.",
        )
    known = dict(
        name=(folder or Path(cfg.transfer.title)).name, metric_note=cfg.transfer.metric_note
    )
    return dict.fromkeys(OF_DATA) | known


def _fit_backbone(cfg: Config, inits: list[Init], options: dict[str, Any]) -> None:
    """A config for any data takes the depth of the checkpoints."""
    depths = {init.depth for init in inits if init.file is not None}
    if len(depths) > 1:
        names = ", ".join(f"{i.name}: ResNet-{i.depth}" for i in inits if i.file is not None)
        raise UserError(
            f"The checkpoints have different architectures ({names}).",
            "Compare checkpoints of one architecture at a time.",
        )
    depth = depths.pop() if depths else None
    if depth and cfg.transfer.data == "any" and "model.backbone.depth" not in options:
        configure.fit_backbone(cfg, depth)
    elif "model.backbone.depth" in options:
        configure.fit_backbone(cfg, cfg.model.backbone.depth)


def check_loading(cfg: Config, inits: list[Init]) -> dict[str, str]:
    """Builds the config's model and counts what each initialisation loads into it.

    Returns:
        Name -> what was loaded, such as ``120/120 tensors, 11.2 M parameters``.

    Raises:
        UserError: The model cannot be built, or an initialisation does not load whole.
    """
    model_cfg = cfg.copy().model
    set_init_cfg(model_cfg, None)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device("cpu"):
        try:
            model = MODELS.build(model_cfg)
        except (TypeError, KeyError, AssertionError, ValueError) as error:
            raise UserError(
                f"The model of the config cannot be built: {error}", "Check --cfg-options model..."
            ) from error
    summaries = {}
    for init in inits:
        if init.file is None:
            summaries[init.name] = "random weights"
            continue
        coverage = coverage_of(model, tensors_of(init.file))
        if not coverage.complete:
            raise UserError(
                f"--init {init.name}: {init.source} does not load whole into the model of the "
                f"config: {coverage.summary()}.\n{coverage.table()}",
                "Use a checkpoint of the config's architecture with the whole backbone; nothing "
                "was trained.",
            )
        summaries[init.name] = coverage.summary()
    return summaries


def _shared_input(inits: list[Init]) -> dict:
    """The input that random weights get: that of the first checkpoint."""
    return next((init.input for init in inits if init.file is not None), IMAGENET_INPUT)


def _write_job(cfg: Config, run: Run, init: Init, shared_input: dict, work_dir: Path) -> Path:
    """Writes the job's config and description; returns its folder."""
    folder = make_folder((work_dir / "runs" / run.name).resolve())
    inputs = init.input if init.file is not None else shared_input
    job_cfg = configure.job_config(cfg, init, inputs, run.seed, run.fraction, folder)
    with open_atomically(folder / "config.py") as file:
        file.write(job_cfg.pretty_text.encode())
    pictures = (work_dir / "predictions").resolve()
    write_json(
        dict(
            config=str(folder / "config.py"),
            init_file=init.file,
            seed=run.seed,
            folder=str(folder),
            parent=os.getpid(),
            metrics=list(METRICS[cfg.transfer.task]),
            predictions=str(pictures / run.name) if run.predicts else None,
            ground_truth=str(pictures / "ground_truth"),
        ),
        folder / "job.json",
    )
    return folder
