"""The main job in small: pretrain on unlabelled images, convert, fine-tune, report."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from densessl.conversion.export import export_checkpoint
from densessl.datasets.images import walk_images
from densessl.demo.scenes import render_scenes
from densessl.engine.pretrain import pretrain
from densessl.environment import cores
from densessl.errors import UserError
from densessl.files import locked, make_folder, write_json
from densessl.labels.folders import index_images, read_ids, read_splits
from densessl.numeric import spaced
from densessl.transfer.finetune import finetune
from densessl.transfer.finetune.data import read_data
from densessl.transfer.report import write_report
from densessl.transfer.summary import verdict

CONFIG = "configs/densecl/densecl_r18_1xb64-coslr-100e_folder.py"
DETECTOR = "configs/transfer/detection/fcos_fpn_small.py"
SEGMENTER = "configs/transfer/segmentation/semantic-fpn_small.py"
# Small nets use two cores better as two jobs than as two threads.
JOBS = 1 if torch.cuda.is_available() else min(2, cores())


@dataclass(frozen=True)
class Plan:
    """How much of everything: small enough for two CPU cores.

    Attributes:
        view_size: Side of the views in pixels.
        batch_size: Images a pretraining step.
        steps: Pretraining steps; the learning rate falls to zero over them.
        detector_iterations: Of each fine-tuned detector.
        segmenter_iterations: Of each fine-tuned segmenter.
        detector_options: Config keys of the detector to override.
        segmenter_options: Config keys of the segmenter to override.
        scenes: Options of ``render_scenes``, where scenes are rendered.
        seeds: Fine-tuning seeds.
    """

    view_size: int
    batch_size: int
    steps: int
    detector_iterations: int
    segmenter_iterations: int
    detector_options: dict = field(default_factory=dict)
    segmenter_options: dict = field(default_factory=dict)
    scenes: dict = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1)


# Scenes of 128 pixels are seen at 64 by everything.
SCENES = Plan(
    64,
    32,
    150,
    160,
    120,
    detector_options={
        "train_dataloader.dataset.pipeline.2.scales": [(128, 56), (128, 64)],
        "val_dataloader.dataset.pipeline.1.scale": (128, 64),
    },
    segmenter_options={
        "model.data_preprocessor.size": (64, 64),
        "train_dataloader.dataset.pipeline.2.scale": (256, 72),
        "train_dataloader.dataset.pipeline.3.crop_size": (64, 64),
        "val_dataloader.dataset.pipeline.1.scale": (256, 64),
    },
)
PHOTOS = Plan(96, 32, 250, 240, 200)


def run_demo(out_dir: str | Path, data: str | Path | None = None) -> Path:
    """Runs the demo; a second call goes on where the first one stopped.

    Args:
        out_dir: Everything is written below it.
        data: A VOC-layout folder with boxes and segmentation masks; None renders scenes.

    Returns:
        Path of ``report.html``.

    Raises:
        UserError: ``data`` lacks labels of either task, ``out_dir`` holds something else, or
            another demo works in it.
    """
    out, plan = Path(out_dir), SCENES if data is None else PHOTOS
    if data is not None:
        _check_labels(Path(data))
    _claim(out, plan, data)
    busy = UserError(
        f"Another demo works in {out}.",
        "wait until it has ended, or give another folder: make demo OUT=DIR ...",
    )
    with locked(out, busy):
        return _all_steps(out, plan, data)


def _all_steps(out: Path, plan: Plan, data: str | Path | None) -> Path:
    started = time.time()
    if data is None:
        _say("1/5 rendering scenes")
        data = render_scenes(out / "scenes", progress=_every(200, "images"), **plan.scenes)
    images = _pretraining_images(Path(data), out, plan.steps * plan.batch_size)
    epochs = max(1, round(plan.steps * plan.batch_size / len(images)))
    steps = epochs * (len(images) // plan.batch_size)

    _say(f"2/5 pretraining DenseCL, R18, {steps} steps on {len(images)} images without labels")
    info = _pretrain(out, Path(data), plan, images=len(images), epochs=epochs, steps=steps)

    _say("3/5 converting the backbone and proving the conversion")
    exported = out / "backbone.pth"
    if not exported.exists():
        print(export_checkpoint(info["checkpoint"], exported, to="mmdet").summary())

    inits = {"densecl": str(exported), "random": "random"}
    results = []
    for number, name, config, iterations, options in (
        (4, "detector", DETECTOR, plan.detector_iterations, plan.detector_options),
        (5, "segmenter", SEGMENTER, plan.segmenter_iterations, plan.segmenter_options),
    ):
        _say(f"{number}/5 fine-tuning a {name} from DenseCL and from random weights")
        path = finetune(
            config,
            inits,
            out / name,
            list(plan.seeds),
            data=data,
            iterations=iterations,
            cfg_options=options,
            jobs=JOBS,
        )
        results.append(json.loads(path.read_text()))

    report = write_report(
        results,
        out,
        "densessl demo: does pretraining help?",
        [out / "detector", out / "segmenter"],
        info,
    )
    _say(f"done in {(time.time() - started) / 60:.1f} minutes")
    for result in results:
        print(verdict(result))
    print(f"Report: {report}")
    return report


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _every(step: int, what: str):
    def progress(done: int, total: int) -> None:
        if done % step == 0 or done == total:
            print(f"  {done}/{total} {what}", flush=True)

    return progress


def _check_labels(data: Path) -> None:
    """Finds what is wrong with the labels of either task before time is spent on pretraining."""
    if not (data / "JPEGImages").is_dir():
        raise UserError(
            f"{data} is not a VOC-layout folder: it has no JPEGImages.",
            "make demo DATA=DIR wants JPEGImages/, Annotations/, ImageSets/ and SegmentationClass/;"
            " for other layouts use tools/train.py and tools/transfer.py",
        )
    for task in ("detection", "segmentation"):
        with TemporaryDirectory() as folder:
            read_data(data, task, folder)


def _claim(out: Path, plan: Plan, data: str | Path | None) -> None:
    """Makes ``out`` ours, or finds that it is already, with the same plan and data."""
    claim = json.loads(json.dumps(dict(plan=asdict(plan), data=data and str(Path(data).resolve()))))
    marker = out / "demo.json"
    if marker.exists() and json.loads(marker.read_text()) == claim:
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"{out} already holds something else.", "give another folder: make demo OUT=DIR ..."
        )
    make_folder(out)
    write_json(claim, marker)


def _pretraining_images(data: Path, out: Path, most: int) -> list[str]:
    """Lists the images of ``data`` but those of its evaluation lists; evenly spaced if too many."""
    labelled = index_images(data / "JPEGImages")
    kept_out = set()
    for lists in data.glob("ImageSets/*"):
        _, split = read_splits(lists, ".txt") or (None, "val")
        if (lists / f"{split}.txt").exists():
            kept_out |= {*read_ids(lists / f"{split}.txt", labelled)}
    images = [
        f"{folder}/{name}"
        for folder in ("JPEGImages", "unlabelled")
        if (data / folder).is_dir()
        for name in walk_images(data / folder)
        if Path(name).stem not in kept_out
    ]
    images = [images[i] for i in spaced(len(images), most)]
    (out / "pretraining_images.txt").write_text("\n".join(images) + "\n")
    return images


def _pretrain(out: Path, data: Path, plan: Plan, images: int, epochs: int, steps: int) -> dict:
    """What the report says about the pretraining, which is done unless it was before."""
    work_dir, summary = out / "pretraining", out / "pretraining.json"
    if summary.exists():
        return json.loads(summary.read_text())
    started = time.time()
    checkpoint = pretrain(
        CONFIG,
        work_dir=work_dir,
        resume=True,
        **{
            "train_dataloader.batch_size": plan.batch_size,
            "train_dataloader.dataset": dict(
                type="FileList",
                list_file=str(out / "pretraining_images.txt"),
                root=str(data),
                transform=dict(type="MultiView", size=plan.view_size, views=["moco_v2", "moco_v2"]),
                _delete_=True,
            ),
            "train_cfg.max_epochs": epochs,
            "param_scheduler.0.end": max(2, plan.steps // 5),  # warm-up: shorter, as training is
            "default_hooks.checkpoint.interval": max(1, epochs // 4),
        },
    )
    lines = [
        json.loads(line)
        for path in sorted(work_dir.glob("*/vis_data/scalars.json"))
        for line in path.read_text().splitlines()
    ]
    log = [*{line["step"]: line for line in lines}.values()]  # resumed steps count once
    info = dict(
        checkpoint=str(checkpoint),
        method="DenseCL",
        architecture="ResNet-18",
        images=images,
        epochs=epochs,
        steps=steps,
        seconds=time.time() - started,
        loss_curve=[
            dict(step=entry["step"], loss=entry["loss"], chance=entry["log(K+1)"]) for entry in log
        ],
        health={
            "cell matches that geometry confirms": f"{log[-1]['match_agreement']:.0%} (guesses: "
            f"{log[-1]['match_chance']:.0%})"
        },
    )
    write_json(info, summary)
    return info
