"""Every shipped pretraining config builds and takes a real step, at reduced size."""

import gc
import json
import math
import shutil
from pathlib import Path

import pytest

from densessl.engine import PretrainRunner, pretrain
from densessl.engine.config import config_folder, load_config
from tests.training import write_images

CONFIGS = sorted(
    str(path.relative_to(config_folder()))
    for path in config_folder().glob("*/*.py")
    if path.parent.name not in ("_base_", "transfer")
)


def imagenet(root: Path, images: Path) -> dict:
    for number, path in enumerate(images.iterdir()):
        folder = root / "train" / f"n{number % 2:08}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / f"{path.stem}.JPEG")
    return dict(root=str(root))


def coco(root: Path, images: Path) -> dict:
    root.mkdir()
    names = [dict(id=i, file_name=path.name) for i, path in enumerate(images.iterdir())]
    (root / "instances.json").write_text(json.dumps(dict(images=names, annotations=[])))
    return dict(root=str(images), annotation=str(root / "instances.json"))


LAYOUTS = dict(
    ImageNet=imagenet, CocoImages=coco, ImageFolder=lambda root, images: dict(root=str(images))
)


@pytest.fixture(autouse=True)
def freed():
    """Runners are cycles: without this the models of many tests are alive at once."""
    yield
    gc.collect()


def test_there_are_configs():
    assert len(CONFIGS) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_builds_and_takes_a_step(tmp_path, monkeypatch, name):
    monkeypatch.setattr(PretrainRunner, "save_now", lambda self, steps: "not saved")
    cfg = load_config(name, {"experiment_name": name.replace("/", "_")})
    dataset = cfg.train_dataloader.dataset
    dataset.update(LAYOUTS[dataset.type](tmp_path / "data", write_images(tmp_path / "images", 8)))
    dataset.transform.size = 64
    for view in dataset.transform.views:
        if isinstance(view, dict) and "stride" in view:  # as large a grid of smaller patches
            grid = (view.size - view.patch) // view.stride
            view.update(patch=32, stride=16, size=32 + 16 * grid)
    cfg.train_dataloader.update(batch_size=4, num_workers=0)
    if "queue_size" in cfg.model:
        cfg.model.queue_size = 64
    for part in cfg.model.values():
        if isinstance(part, dict) and "hidden_channels" in part:
            part.hidden_channels = [min(width, 256) for width in part.hidden_channels]
            part.out_channels = min(part.out_channels, 256)
    if "vit" in cfg.model.backbone.get("name", ""):
        cfg.model.backbone.img_size = 64
    pretrain(
        cfg,
        work_dir=tmp_path / "run",
        **{"train_cfg.max_steps": 1, "default_hooks.logger.interval": 1},
    )
    (log,) = (tmp_path / "run").glob("*/vis_data/scalars.json")
    (figures,) = map(json.loads, log.read_text().splitlines())
    assert figures.pop("step") == 1 and figures["loss"] != 0
    assert all(math.isfinite(value) for value in figures.values()), figures
