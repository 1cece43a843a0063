"""Names in configs mean ours, whatever OpenMMLab project worked in the process before."""

import pytest
from mmengine.registry import DefaultScope

from densessl.models import MoCo
from densessl.models.backbones import ResNet
from densessl.registry import MODELS


def test_a_scope_that_another_project_left_changes_nothing():
    """mmdet has a ResNet too, and mmengine by itself has none."""
    head = dict(type="GlobalHead", in_channels=512, out_channels=8)
    for scope in ("mmengine", "mmdet"):
        with DefaultScope.overwrite_default_scope(scope):
            assert isinstance(MoCo(dict(type="ResNet", depth=18), head, 16).backbone, ResNet)


def test_a_scope_in_the_config_still_counts():
    mmdet = pytest.importorskip("mmdet.models")
    assert isinstance(MODELS.build(dict(type="ResNet", depth=18, _scope_="mmdet")), mmdet.ResNet)
