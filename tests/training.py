"""A tiny world for tests of training: noise images, a small backbone, a small config."""

from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from densessl.registry import MODELS

REPO = Path(__file__).parents[1]
_runs = count()


@MODELS.register_module(force=True)
class TinyNet(nn.Module):
    """Two convolutions and a BatchNorm: (B, 3, H, W) -> ((B, width, H/8, W/8),)."""

    def __init__(self, width: int = 12):
        super().__init__()
        self.out_channels = (width,)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=4, padding=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, width, 3, stride=2, padding=1),
        )

    def forward(self, x):
        return (self.layers(x),)


def write_images(folder: Path, number: int, side: int = 48) -> Path:
    """Writes ``number`` JPEGs of noise, each different."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        pixels = np.random.default_rng(i).integers(0, 256, (side // 4, side // 4, 3), np.uint8)
        image = Image.fromarray(pixels).resize((side, side))
        image.save(folder / f"{i:03}.jpg")
    return folder


def write_config(path: Path, images: Path, base: str = "densecl", extra: str = "") -> Path:
    """Writes the config of a training that takes a second.

    Args:
        path: The file.
        images: Folder of the images.
        base: "densecl" or "moco".
        extra: Lines that come last.
    """
    shipped = {
        "densecl": "densecl/densecl_r18_1xb64-coslr-100e_folder.py",
        "moco": "moco/mocov2_r18_1xb64-coslr-100e_folder.py",
    }[base]
    heads = "head=dict(hidden_channels=(16,), out_channels=8)"
    if base == "densecl":
        heads += ", dense_head=dict(hidden_channels=(16,), out_channels=8)"
    path.write_text(
        f"""
_base_ = {str(REPO / "configs" / shipped)!r}
custom_imports = dict(imports=["tests.training"], allow_failed_imports=False)
# mmengine keeps loggers and hubs by the experiment's name and the second it began in.
experiment_name = "test{next(_runs)}"
model = dict(backbone=dict(_delete_=True, type="TinyNet"), {heads})
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    dataset=dict(root={str(images)!r}, transform=dict(size=32)),
)
train_cfg = dict(max_epochs=2)
{extra}
"""
    )
    return path
