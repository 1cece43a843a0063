"""Every shipped recipe trains: two real steps with a tiny backbone, narrow heads and few images."""

from itertools import count

import pytest

from densessl.engine.config import config_folder, load_config
from densessl.engine.pretrain import pretrain
from tests.training import TinyNet, write_images  # noqa: F401  (registers TinyNet)

FOLDERS = ["simclr", "byol", "barlowtwins", "vicreg", "simsiam", "nnclr", "mocov3"]
RECIPES = [path for folder in FOLDERS for path in sorted((config_folder() / folder).glob("*.py"))]
_runs = count()


def narrow(model):
    """Heads of any depth, but thin."""
    for value in model.values():
        if isinstance(value, dict) and "hidden_channels" in value:
            value.update(hidden_channels=(16,) * len(value["hidden_channels"]), out_channels=8)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), 8)


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_trains(path, images, tmp_path):
    cfg = load_config(path)
    narrow(cfg.model)
    cfg.model.backbone = dict(type="TinyNet")
    cfg.experiment_name = f"recipe{next(_runs)}"
    cfg.train_dataloader.update(batch_size=4, num_workers=0)
    cfg.train_dataloader.dataset.transform.size = 32
    cfg.train_cfg.max_steps = 2
    checkpoint = pretrain(cfg, images=images, work_dir=tmp_path, precision="fp32", seed=0)
    assert checkpoint.is_file()
