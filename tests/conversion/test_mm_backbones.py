"""Backbones of mmdet's and mmseg's: trained here, written back to where they are from."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from mmengine.registry import MODELS as ROOT_MODELS
from torch import nn

from densessl.checkpoint import load_checkpoint
from densessl.conversion.export import export_checkpoint, verify
from densessl.conversion.source import load_backbone
from densessl.engine import pretrain
from densessl.engine.checks import check_config
from densessl.engine.config import load_config
from densessl.errors import UserError
from densessl.models.backbones import MMBackbone, build_backbone
from tests.checkpoints import write_checkpoint
from tests.training import write_config, write_images

SWIN = dict(type="mmdet.SwinTransformer", embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8))
RESNET_GN = dict(
    type="mmdet.ResNet",
    depth=18,
    base_channels=8,
    norm_cfg=dict(type="GN", num_groups=4),
    norm_eval=False,
)
MIT = dict(type="mmseg.MixVisionTransformer", embed_dims=8, num_layers=[1] * 4, drop_path_rate=0.0)
BEIT = dict(
    type="mmseg.BEiT",
    embed_dims=12,
    num_layers=4,
    num_heads=2,
    out_indices=(0, 1, 2, 3),
    norm_eval=False,
)


def wrapped(model, **options):
    return dict(type="MMBackbone", model=model, **options)


def test_its_maps_are_the_projects():
    backbone = build_backbone(wrapped(SWIN, out_indices=(1, 3))).eval()
    images = torch.randn(2, 3, 64, 64)
    maps = backbone.model(images)
    assert backbone.out_channels == (16, 64)
    for ours, theirs in zip(backbone(images), (maps[1], maps[3]), strict=True):
        assert torch.equal(ours, theirs)


def test_what_makes_no_map_is_frozen():
    backbone = MMBackbone(SWIN)
    frozen = {name for name, p in backbone.model.named_parameters() if not p.requires_grad}
    assert frozen == {f"norm{stage}.{kind}" for stage in range(3) for kind in ("weight", "bias")}
    assert all(p.grad is None for p in backbone.parameters()) and backbone.model.training


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (dict(SWIN, out_indices=(2, 3)), "gives 2 maps"),
        (dict(RESNET_GN, norm_eval=True), "does not learn the statistics"),
        (dict(RESNET_GN, frozen_stages=1), "frozen_stages is 1"),
        (dict(type="mmdet.SwinTransfomer"), "no backbone here"),
        (dict(type="mmdet.FPN", in_channels=[8, 8], out_channels=4, num_outs=2), "AssertionError"),
    ],
)
def test_what_cannot_be_pretrained_is_named(options, problem):
    with pytest.raises(UserError, match=problem):
        MMBackbone(options)


@pytest.mark.parametrize(
    ("model", "to"),
    [
        (SWIN, "mmdet"),
        (dict(SWIN, convert_weights=True, pretrained="nowhere.pth", with_cp=True), "mmdet"),
        (SWIN, "mmseg"),
        (MIT, "mmseg"),
        (RESNET_GN, "mmdet"),
        (dict(type="mmseg.ResNetV1c", depth=18, base_channels=8, norm_eval=False), "mmseg"),
        (BEIT, "mmseg"),
    ],
)
def test_it_goes_back_with_its_own_names(model, to, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "a.pth", wrapped(model))
    report = export_checkpoint(checkpoint, tmp_path / "b.pth", to)
    assert report.passed and len(report.stages) == 4 and not report.not_loaded
    name = model["type"].partition(".")[2]
    assert f'backbone=dict(type="{name}", ' in report.usage
    assert verify(tmp_path / "b.pth", checkpoint).passed
    again = load_backbone(tmp_path / "b.pth").state_dict()  # out of the exported file
    kept = load_backbone(checkpoint).state_dict()
    assert again.keys() == kept.keys()
    assert all(torch.equal(again[key], kept[key]) for key in kept)


def test_projects_without_it_are_named(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "a.pth", wrapped(MIT))
    with pytest.raises(UserError, match="mmdet has no backbone 'MixVisionTransformer'") as error:
        export_checkpoint(checkpoint, tmp_path / "b.pth", "mmdet")
    assert "It is of mmseg" in error.value.remedy
    with pytest.raises(UserError, match="torchvision has no backbone 'mmseg.MixVisionTransformer'"):
        export_checkpoint(checkpoint, tmp_path / "b.pth", "torchvision")


def test_a_namesake_that_does_not_take_its_arguments_is_named(tmp_path):
    mobile = dict(
        type="mmdet.MobileNetV2", widen_factor=0.1, out_indices=(1, 2, 4, 7), norm_eval=False
    )
    checkpoint = write_checkpoint(tmp_path / "a.pth", wrapped(mobile))
    with pytest.raises(UserError, match="mmseg's MobileNetV2 does not take .*received 7") as error:
        export_checkpoint(checkpoint, tmp_path / "b.pth", "mmseg")
    assert error.value.remedy == "Export it to mmdet."


@ROOT_MODELS.register_module()
class OnesOwnNet(BaseModule):
    """A user's own network in mmdet's style: four maps."""

    def __init__(self, width=4, init_cfg=None):
        super().__init__(init_cfg)
        self.stages = nn.ModuleList(
            nn.Conv2d(3 if not stage else width, width, 3, 4 if not stage else 2, 1)
            for stage in range(4)
        )

    def forward(self, x):
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


def test_one_of_ones_own_goes_to_mmdet_with_the_import_that_it_needs(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "a.pth", wrapped(dict(type="OnesOwnNet", width=8)))
    report = export_checkpoint(checkpoint, tmp_path / "b.pth", "mmdet")
    assert report.passed and report.architecture == "OnesOwnNet {'width': 8}"
    assert f'custom_imports=dict(imports=["{__name__}"])' in report.usage


def test_a_config_is_checked_against_the_projects_own_arguments(tmp_path):
    images = write_images(tmp_path / "images", 8)
    cfg = load_config(write_config(tmp_path / "config.py", images))
    cfg.model.backbone = ConfigDict(wrapped(RESNET_GN | dict(norm_cfg=dict(requires_grad=True))))
    check_config(cfg)  # what is inside of a part is the project's own matter
    cfg.model.backbone = ConfigDict(wrapped(dict(type="mmdet.ResNeXtt")))
    with pytest.raises(UserError, match="mmdet has no 'mmdet.ResNeXtt'"):
        check_config(cfg)
    cfg.model.backbone = ConfigDict(wrapped(dict(RESNET_GN, norms="x")))
    with pytest.raises(UserError, match="Unknown key 'norms' in model.backbone.model") as error:
        check_config(cfg)
    assert "avg_down" in error.value.remedy  # which only mmdet's ResNet has


def test_it_trains_with_the_weights_that_the_project_begins_with(tmp_path):
    images = write_images(tmp_path / "images", 8)
    config = write_config(
        tmp_path / "config.py",
        images,
        extra=f"model['backbone'] = dict(_delete_=True, **{wrapped(SWIN)!r})",
    )
    checkpoint = pretrain(config, work_dir=tmp_path / "work", train_cfg__max_epochs=1)
    state = load_checkpoint(checkpoint)["state_dict"]
    kernel = state["backbone.model.stages.3.blocks.0.ffn.layers.0.0.weight"]
    assert kernel.std().item() == pytest.approx(0.02, rel=0.1)  # mmdet's; PyTorch's is 0.07
    assert export_checkpoint(checkpoint, tmp_path / "b.pth", "mmdet", "teacher").passed
