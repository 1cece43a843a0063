from pathlib import Path

import pytest

from densessl.conversion.export import export_checkpoint
from tests.checkpoints import write_checkpoint


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("pretrained")
    return {
        depth: write_checkpoint(
            folder / f"r{depth}.pth", {"type": "ResNet", "depth": depth}, teacher=depth == 18
        )
        for depth in (18, 50)
    }


@pytest.fixture(scope="session")
def exported(checkpoints, tmp_path_factory) -> Path:
    """ResNet-18 for mmdet; not to be changed."""
    out = tmp_path_factory.mktemp("exported") / "out.pth"
    assert export_checkpoint(checkpoints[18], out, to="mmdet").passed
    return out
