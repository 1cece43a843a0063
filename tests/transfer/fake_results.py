"""Results of comparisons that never ran, for the summary and the report."""

from pathlib import Path

import numpy as np
from PIL import Image

ENVIRONMENT = {
    "commit": "0123abc",
    "hardware": "2 CPU cores",
    "versions": {"torch": "2.11.0", "mmdet": "3.5.1"},
    "command": "tools/transfer.py small.py --init densecl=densecl.pth --seeds 0 1",
    "date": "2025-01-31 12:00",
}


def _run(init: str, seed: int, fraction: float, values: dict[str, float], iterations: int) -> dict:
    """A finished run whose curve climbs to its final values."""
    rng = np.random.default_rng([seed, round(fraction * 100), len(init)])
    headline = next(iter(values))
    steps = range(iterations // 10, iterations + 1, iterations // 10)
    return {
        "init": init,
        "seed": seed,
        "label_fraction": fraction,
        "train_images": round(240 * fraction),
        "status": "done",
        "error": None,
        "iterations": iterations,
        "seconds": 61.4 + seed,
        "metrics": values,
        "curve": [
            {"iter": i, headline: values[headline] * (1 - np.exp(-4 * i / iterations))}
            for i in steps
        ],
        "loss_curve": [
            {"iter": i, "loss": 2 * np.exp(-2 * i / iterations) + 0.4 + 0.1 * rng.standard_normal()}
            for i in range(1, iterations, 5)
        ],
        "predictions": [],
        "environment": {key: value for key, value in ENVIRONMENT.items() if key != "command"},
    }


def fake_result(
    task: str,
    metrics: list[str],
    scores: dict[tuple[str, float], list[float]],
    iterations: int = 600,
) -> dict:
    """A result with headline values ``scores[init, fraction][seed]``; the others follow."""
    names = list(dict.fromkeys(name for name, _ in scores))
    runs = [
        _run(
            init, seed, fraction, {m: v * (1 + 0.3 * i) for i, m in enumerate(metrics)}, iterations
        )
        for (init, fraction), values in scores.items()
        for seed, v in enumerate(values)
    ]
    return {
        "format": "densessl-transfer/1",
        "task": task,
        "title": {"detection": "Faster R-CNN R18-FPN", "segmentation": "FCN R18"}.get(task, task),
        "config": f"configs/transfer/{task}/small.py",
        "data": {
            "name": "scenes",
            "classes": ["disc", "ring", "box", "cross", "star", "triangle"],
            "train_images": 240,
            "val_images": 80,
            "metric_note": "AP averaged over IoU .50:.95, area under the curve.",
        },
        "metrics": metrics,
        "environment": ENVIRONMENT,
        "inits": [
            {
                "name": name,
                "source": "random" if name == "random" else f"{name}.pth",
                "method": None if name == "random" else "DenseCL",
                "loaded": "0/62 tensors" if name == "random" else "62/62 tensors",
            }
            for name in names
        ],
        "seeds": list(range(max(map(len, scores.values())))),
        "label_fractions": sorted({fraction for _, fraction in scores}),
        "runs": runs,
        "ground_truth": [],
    }


def add_predictions(result: dict, root: Path, count: int = 3) -> None:
    """Draws small pictures as the transfer harness does: the first seed, the largest fraction."""
    rng = np.random.default_rng(0)

    def draw(folder: str) -> list[str]:
        paths = [f"predictions/{folder}/{i:06d}.png" for i in range(count)]
        for path in paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            picture = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
            Image.fromarray(picture).resize((200, 160)).save(root / path)
        return paths

    result["ground_truth"] = draw("ground_truth")
    for i, run in enumerate(result["runs"]):
        if run["seed"] == 0 and run["label_fraction"] == max(result["label_fractions"]):
            run["predictions"] = draw(f"run{i}")


def detector_result() -> dict:
    return fake_result(
        "detection",
        ["AP", "AP50", "AP75"],
        {
            ("densecl", 0.1): [12.0, 13.0],
            ("densecl", 1.0): [31.2, 32.4],
            ("moco", 0.1): [8.0, 9.0],
            ("moco", 1.0): [25.0, 26.5],
            ("random", 0.1): [5.0, 4.0],
            ("random", 1.0): [24.0, 25.6],
        },
    )


def segmenter_result() -> dict:
    scores = {("densecl", 1.0): [40.0, 42.0], ("random", 1.0): [44.0, 45.0]}
    return fake_result("segmentation", ["mIoU", "mAcc", "aAcc"], scores)


PRETRAINING = {
    "method": "DenseCL",
    "architecture": {"type": "ResNet", "depth": 18},
    "images": 1200,
    "epochs": 20,
    "steps": 740,
    "seconds": 190.0,
    "health": {"embedding deviation": 0.0432, "dense matches agreeing": "61 %"},
    "loss_curve": [
        {"step": s, "loss": 7 - s / 300 + 0.2 * np.sin(s), "chance": 6.93}
        for s in range(0, 740, 10)
    ],
}
