from pathlib import Path

import pytest
import torch

from densessl.models import build_backbone
from tests.evaluation.sets import make_classes
from tests.tiny_sets import make_voc


@pytest.fixture(scope="session")
def classes(tmp_path_factory) -> Path:
    return make_classes(tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="session")
def voc(tmp_path_factory) -> Path:
    return make_voc(tmp_path_factory.mktemp("voc"), train=10, val=6)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A checkpoint as pretraining writes it, with a student and a teacher."""
    path = tmp_path_factory.mktemp("checkpoint") / "epoch_1.pth"
    architecture = dict(type="ResNet", depth=18)
    state = build_backbone(architecture).state_dict()
    teacher = build_backbone(architecture).state_dict()
    meta = dict(
        format="densessl/1",
        method="BYOL",
        architecture=architecture,
        input=dict(mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0], channel_order="RGB"),
        view_size=64,
        step=7,
    )
    tensors = {f"backbone.{key}": value for key, value in state.items()}
    tensors |= {f"teacher.backbone.{key}": value for key, value in teacher.items()}
    torch.save(dict(meta=meta, state_dict=tensors), path)
    return path
