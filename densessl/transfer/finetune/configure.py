"""From a transfer config, data and options to the config of one fine-tuning job."""

import copy
import difflib
from importlib import import_module
from math import ceil
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

import densessl.transfer.mm  # noqa: F401  (makes mmseg:: configs findable)
from densessl.engine.checks import TOP_KEYS
from densessl.engine.config import apply_options, config_folder, read_config
from densessl.engine.values import check_sections, check_values
from densessl.errors import UserError
from densessl.suggest import did_you_mean
from densessl.transfer.finetune.data import LabelledData
from densessl.transfer.finetune.inits import Init, set_init_cfg
from densessl.transfer.summary import TASK_NAMES

# Channels of C2..C5.
CHANNELS = {True: [256, 512, 1024, 2048], False: [64, 128, 256, 512]}
OF_TRANSFER = ("task", "title", "data", "metric_note", "total_batch")
TRAIN_IDS = "_gtFine_labelTrainIds.png"  # of Cityscapes; its archive lacks them
LENGTHS = {"T_max", "step_size", "total_steps"}  # of mmengine's schedules, counted from their begin
TO_LAB = dict(type="densessl.ToLab")  # goes before the last step, which packs the image


def load_config(path: str | Path, options: dict[str, Any] | None = None) -> Config:
    """Loads a transfer config and applies ``--cfg-options``.

    Args:
        path: A file; a path below the shipped ``configs/``, or a shipped file's name, works from
            anywhere.
        options: Dotted keys.

    Raises:
        UserError: There is no such config, it is none for a transfer, or an option does not fit.
    """
    cfg = read_config(path, "transfer")
    told = cfg.get("transfer")
    lacking = [key for key in OF_TRANSFER if not isinstance(told, dict) or key not in told]
    if lacking:
        raise UserError(
            f"{path} is no transfer config: it has no `transfer = dict({lacking[0]}=..., ...)`.",
            f"Take one of those in {config_folder() / 'transfer'}, or inherit from one.",
        )
    if told.task not in TASK_NAMES:
        near = did_you_mean(str(told.task), TASK_NAMES)
        raise UserError(
            f"{path} has the transfer.task {told.task!r}{near}.",
            f"Choose one of {', '.join(TASK_NAMES)}.",
        )
    _check_names(cfg, path)
    _import_ours(cfg)
    for key, value in (options or {}).items():
        apply_option(cfg, key, value)
    check_sections(cfg)
    check_values(cfg)
    return cfg


def _check_names(cfg: Config, path: str | Path) -> None:
    """Refuses a name that nothing reads and that nearly is one that mmengine reads; mm's configs
    have any other variables beside those, and mmseg's even ``models``."""
    known = TOP_KEYS | {"transfer", "models"}
    for key in (key for key in cfg if key not in known and not key.startswith("_")):
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.88)
        if near:
            raise UserError(
                f"{path} sets {key}, which nothing reads (did you mean '{near[0]}'?).",
                "Correct the name, or begin it with _ if it is a variable of your own.",
            )


def _import_ours(cfg: Config) -> None:
    """A config's own ``custom_imports`` take the place of those it inherits, which it needs too."""
    part = "segmentation" if cfg.transfer.task == "segmentation" else "detection"
    named, ours = cfg.get("custom_imports") or {}, f"densessl.transfer.mm.{part}"
    imports = named.get("imports") or []
    imports = [imports] if isinstance(imports, str) else imports
    if ours not in imports:
        cfg.custom_imports = dict(named, imports=[ours, *imports])
        import_module(ours)  # mmengine has imported the config's own alone


def apply_option(cfg: Config, key: str, value: Any) -> None:
    """Sets one dotted key. A key that is new must at least not look like a misspelt one.

    mmengine would create any key without a word. New keys are taken only as arguments of something
    that has a ``type``.

    Raises:
        UserError: Nothing in the config has that name.
    """
    place: Any = cfg._cfg_dict
    parts = key.split(".")
    for depth, part in enumerate(parts):
        where = ".".join(parts[:depth]) or "the config"
        if isinstance(place, list | tuple):
            if not part.isdigit() or int(part) >= len(place):
                raise UserError(
                    f"--cfg-options {key}: {where} is a list of {len(place)} items.",
                    "Number the item from 0.",
                )
            place = place[int(part)]
            continue
        if not isinstance(place, dict):
            raise UserError(f"--cfg-options {key}: {where} holds no keys.", "Shorten the key.")
        if part not in place:
            near = did_you_mean(part, place)
            last = depth == len(parts) - 1
            if near or not last or "type" not in place:
                known = [name for name in place if not name.startswith("_")]
                raise UserError(
                    f"--cfg-options {key}: {where} has no key '{part}'{near}.",
                    f"It has: {', '.join(known)}.",
                )
            break
        place = place[part]
    apply_options(cfg, {key: value})


def fit_data(cfg: Config, data: LabelledData) -> None:
    """Puts a user's data set and its number of classes into a config for any data."""
    for loader, dataset in ((cfg.train_dataloader, data.train), (cfg.val_dataloader, data.val)):
        loader.dataset = ConfigDict(**dataset, pipeline=loader.dataset.pipeline)
    cfg.val_evaluator = ConfigDict(data.evaluator)
    count = len(data.classes)
    model = cfg.model
    for head in (model.get("bbox_head"), model.get("decode_head"), model.get("auxiliary_head")):
        if head:
            head.num_classes = count
    for head in ("bbox_head", "mask_head"):
        if model.get("roi_head") and model.roi_head.get(head):
            model.roi_head[head].num_classes = count


def move_data_root(cfg: Config, folder: Path) -> None:
    """Replaces the published set's usual place (data/...) by ``folder`` wherever it stands."""
    roots = {d.data_root for d in _datasets(cfg.train_dataloader.dataset)}
    loaders = ("train_dataloader", "val_dataloader", "test_dataloader")
    for old in roots:
        for part in (*loaders, "val_evaluator", "test_evaluator"):
            _replace_prefix(cfg[part], old, folder)


def missing_files(cfg: Config) -> list[str]:
    """Annotation files or image folders that the config's data sets name and that do not exist."""
    missing = []
    loaders = (cfg.train_dataloader, cfg.val_dataloader)
    for dataset in (d for loader in loaders for d in _datasets(loader.dataset)):
        root = Path(dataset.get("data_root") or "")
        paths = [dataset.get("ann_file"), *(dataset.get("data_prefix") or {}).values()]
        missing += [str(root / path) for path in paths if path and not (root / path).exists()]
        if dataset.get("type") == "CityscapesDataset":
            masks = root / dataset.data_prefix.seg_map_path
            if next(masks.rglob(f"*{TRAIN_IDS}"), None) is None:
                missing.append(f"{masks}/*/*{TRAIN_IDS}")
    return sorted(set(missing))


def fit_backbone(cfg: Config, depth: int) -> None:
    """Gives a small config the backbone depth of the checkpoints."""
    model = cfg.model
    model.backbone.depth = depth
    channels = CHANNELS[depth >= 50]
    if model.get("neck"):
        model.neck.in_channels = channels
    elif model.get("decode_head"):
        model.decode_head.in_channels = channels[-1]


def set_batch(cfg: Config, options: dict[str, Any]) -> str:
    """Sets the total batch of the protocol on this one device, or scales the learning rate.

    Returns:
        What was done, for the user.

    Raises:
        UserError: The config accumulates gradients.
    """
    counts = cfg.optim_wrapper.get("accumulative_counts", 1)
    if counts != 1:
        raise UserError(
            f"optim_wrapper.accumulative_counts is {counts}: the schedule would have as many times "
            "fewer steps.",
            "Set train_dataloader.batch_size alone; the learning rate follows.",
        )
    total = cfg.transfer.total_batch
    if "train_dataloader.batch_size" not in options:
        cfg.train_dataloader.batch_size = total
        return f"{total} images a step on one device"
    batch = cfg.train_dataloader.batch_size
    optimizer = cfg.optim_wrapper.optimizer
    if batch == total or "optim_wrapper.optimizer.lr" in options:
        return f"{batch} images a step, learning rate {optimizer.lr:g}"
    optimizer.lr = optimizer.lr * batch / total
    return (
        f"{batch} images a step instead of {total}: learning rate scaled linearly to "
        f"{optimizer.lr:g}; the length of the schedule is kept"
    )


def set_iterations(cfg: Config, iterations: int, options: dict[str, Any]) -> None:
    """Shortens or stretches the whole schedule to ``iterations``.

    An evaluation interval that the user has set is kept.

    Raises:
        UserError: Fewer than two iterations.
    """
    if iterations < 2:
        raise UserError(f"--iterations {iterations} is too few.", "Give at least 2.")
    loop = cfg.train_cfg
    by_epoch = "max_epochs" in loop
    old = loop.max_epochs if by_epoch else loop.max_iters
    # Rounded up, or there would be an evaluation just before the one at the end.
    interval = ceil(loop.val_interval * iterations / old)
    if "train_cfg.val_interval" in options:
        interval = loop.val_interval
    cfg.train_cfg = ConfigDict(
        type="IterBasedTrainLoop", max_iters=iterations, val_interval=interval
    )
    if by_epoch:
        cfg.train_dataloader.sampler = ConfigDict(type="InfiniteSampler", shuffle=True)
        cfg.log_processor = ConfigDict(by_epoch=False)
        if cfg.default_hooks.get("checkpoint"):
            cfg.default_hooks.checkpoint.update(by_epoch=False, interval=interval)
    warm_up, new_warm_up = 0, 0
    schedules = cfg.get("param_scheduler") or []
    for scheduler in [schedules] if isinstance(schedules, dict) else schedules:
        if scheduler.type == "LinearLR" and not scheduler.get("by_epoch", True):
            # A warm-up keeps its length unless the whole run is shorter.
            warm_up, new_warm_up = scheduler.end, max(1, min(scheduler.end, iterations // 4))
            scheduler.end = new_warm_up
            continue
        scale = iterations / (old if scheduler.get("by_epoch", True) == by_epoch else iterations)
        begin, end = scheduler.get("begin", 0), scheduler.get("end", old)
        scheduler.begin = new_warm_up if begin and begin == warm_up else round(begin * scale)
        scheduler.end = round(end * scale)
        if "milestones" in scheduler:
            scheduler.milestones = [round(m * scale) for m in scheduler.milestones]
        for length in LENGTHS & scheduler.keys():
            span = (scheduler.end - scheduler.begin) / (end - begin)
            scheduler[length] = max(1, round(scheduler[length] * span))
        scheduler.pop("convert_to_iter_based", None)  # it is now
        scheduler.by_epoch = False


def set_input(cfg: Config, inputs: dict) -> None:
    """Mean, std and channel order of the pretraining into the preprocessor and the pipelines."""
    order = inputs.get("channel_order", "RGB")
    cfg.model.data_preprocessor.update(
        mean=list(inputs["mean"]), std=list(inputs["std"]), bgr_to_rgb=order == "RGB"
    )
    if order == "Lab":
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            for dataset in _datasets(loader.dataset):
                dataset.pipeline = [*dataset.pipeline[:-1], TO_LAB, dataset.pipeline[-1]]


def job_config(
    cfg: Config, init: Init, inputs: dict, seed: int, fraction: float, work_dir: Path
) -> Config:
    """The config of one job: initialisation, seed, share of the labels, folder.

    It is complete, and can also be run by mmdet's or mmseg's own tools.
    """
    job = copy.deepcopy(cfg)
    set_init_cfg(job.model, init.file)
    set_input(job, inputs)
    loader = job.train_dataloader
    loader.dataset = ConfigDict(
        type="densessl.LabelSubset", dataset=loader.dataset, fraction=fraction, seed=seed
    )
    if loader.num_workers == 0:
        # In the training process the augmentation would share its random numbers with the model,
        # and the order of the draws would differ from one initialisation to the other.
        loader.num_workers, loader.persistent_workers = 1, True
    job.test_dataloader = copy.deepcopy(job.val_dataloader)  # for mm's inference and test tools
    job.test_evaluator, job.test_cfg = copy.deepcopy(job.val_evaluator), dict(type="TestLoop")
    job.work_dir = str(work_dir)
    job.randomness = dict(seed=seed)
    job.load_from, job.resume = None, False
    return job


def _datasets(dataset: ConfigDict) -> list[ConfigDict]:
    """The data sets inside wrappers."""
    if "datasets" in dataset:
        return [inner for d in dataset.datasets for inner in _datasets(d)]
    return _datasets(dataset.dataset) if "dataset" in dataset else [dataset]


def _replace_prefix(value: Any, old: str, new: Path) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if isinstance(item, dict | list):
            _replace_prefix(item, old, new)
        elif isinstance(item, str) and key in ("data_root", "ann_file") and item.startswith(old):
            value[key] = str(new / item[len(old) :].lstrip("/"))
