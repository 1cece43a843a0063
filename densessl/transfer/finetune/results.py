"""``results.json``: everything a comparison found, in one file."""

from pathlib import Path
from typing import Any

from mmengine.config import Config

from densessl.environment import environment
from densessl.transfer.finetune.inits import Init
from densessl.transfer.finetune.plan import Run
from densessl.transfer.finetune.processes import read_json
from densessl.transfer.summary import RESULTS_FORMAT

METRICS = {
    "detection": ("AP", "AP50", "AP75"),
    "instance": ("box_AP", "box_AP50", "box_AP75", "mask_AP", "mask_AP50", "mask_AP75"),
    "segmentation": ("mIoU", "mAcc", "aAcc"),
}
OF_A_RUN = ("iterations", "seconds", "metrics", "curve", "loss_curve", "environment")


def collect(
    cfg: Config,
    config: str | Path,
    data: dict[str, Any],
    inits: list[Init],
    loaded: dict[str, str],
    runs: list[Run],
    work_dir: Path,
) -> dict[str, Any]:
    """Gathers the jobs that have ended, well or not.

    Args:
        cfg: The config that the jobs came from.
        config: What the user called it.
        data: name, classes, train_images, val_images, metric_note, labels_sha256; None where only a
            job can tell.
        inits: The starting points.
        loaded: Name of the initialisation -> what was loaded of it.
        runs: All jobs.
        work_dir: The folder of the comparison.

    Returns:
        The content of ``results.json``. All metrics are percent.
    """
    entries, done = [], []
    truth: list[str] = []
    for run in runs:
        result = read_json(work_dir / "runs" / run.name / "result.json")
        if result is None:
            continue
        if result["status"] == "done":
            done.append((run, result))
            truth = truth or result.get("ground_truth", [])
        entries.append(
            dict(
                init=run.init,
                seed=run.seed,
                label_fraction=run.fraction,
                train_images=result.get("train_images"),
                status=result["status"],
                error=result["error"],
                **{key: result.get(key) for key in OF_A_RUN},
                predictions=result.get("predictions", []),
            )
        )
    full = [result for run, result in done if run.fraction == 1]
    first = done[0][1] if done else {}
    facts = dict(data)
    facts["train_images"] = facts["train_images"] or (full[0]["train_images"] if full else None)
    facts["val_images"] = facts["val_images"] or first.get("val_images")
    facts["classes"] = facts["classes"] or first.get("classes") or []
    return dict(
        format=RESULTS_FORMAT,
        task=cfg.transfer.task,
        title=cfg.transfer.title,
        config=Path(config).name,
        data=facts,
        metrics=list(METRICS[cfg.transfer.task]),
        environment=environment(),
        inits=[
            dict(name=i.name, source=i.source, method=i.method, loaded=loaded[i.name])
            for i in inits
        ],
        seeds=list(dict.fromkeys(run.seed for run in runs)),
        label_fractions=sorted({run.fraction for run in runs}),
        runs=entries,
        ground_truth=truth,
    )
