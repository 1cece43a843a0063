"""Every shipped transfer config, built at its real size: what it loads, trains and normalises."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, METRICS, MODELS, DefaultScope
from PIL import Image
from torch.nn.modules.batchnorm import _BatchNorm

from densessl.conversion.source import IMAGENET_INPUT
from densessl.errors import UserError
from densessl.models.backbones import build_backbone
from densessl.transfer.finetune.configure import load_config, missing_files, move_data_root
from densessl.transfer.finetune.harness import check_loading
from densessl.transfer.finetune.inits import Init, load_into, set_init_cfg
from tests.tiny_sets import make_voc

R50 = dict(type="ResNet", depth=50)
VOC_C4 = "faster-rcnn_r50-c4_24k_voc0712"
PUBLISHED = {
    VOC_C4: "c4",
    "mask-rcnn_r50-c4_1x_coco": "c4",
    "mask-rcnn_r50-fpn_1x_coco": "plain",
    "retinanet_r50-fpn_1x_coco": "plain",
    "fcn_r50-d8_20k_voc12aug": "dilated",
    "fcn_r50-d8_40k_cityscapes": "dilated",
    "fcn_r50-d8_80k_ade20k": "dilated",
}
SMALL = (
    "faster-rcnn_fpn_small",
    "mask-rcnn_fpn_small",
    "fcos_fpn_small",
    "fcn_small",
    "semantic-fpn_small",
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A random ResNet-50 with BatchNorm statistics that matter, as tools/convert.py writes it."""
    torch.manual_seed(0)
    backbone = build_backbone(R50)
    for name, value in backbone.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(std=0.1)
        elif name.endswith(("running_var", "bn3.weight")):
            value.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("exported") / "r50.pth"
    meta = dict(format="densessl-export/1", to="mmdet", architecture=R50, input=IMAGENET_INPUT)
    torch.save(dict(state_dict=backbone.state_dict(), meta=meta), path)
    return path


def build(cfg):
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model)


def ours(exported: Path, dilated: bool):
    stride = (False, True, True) if dilated else None
    backbone = build_backbone(dict(**R50, replace_stride_with_dilation=stride, out_indices=(2, 3)))
    backbone.load_state_dict(torch.load(exported)["state_dict"])
    return backbone.eval()


def relative_error(theirs: torch.Tensor, mine: torch.Tensor) -> float:
    assert theirs.shape == mine.shape
    return float((theirs - mine).abs().max() / mine.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("name,form", PUBLISHED.items())
def test_backbone_loads_whole_and_gives_our_maps(name, form, exported):
    """Through mm's own ``init_cfg``, as with mmdet's or mmseg's tools."""
    cfg = load_config(name)
    set_init_cfg(cfg.model, str(exported))
    model = revert_sync_batchnorm(build(cfg))
    model.init_weights()
    model.eval()
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        c4, c5 = ours(exported, dilated=form == "dilated")(images)
        maps = model.backbone(images)
        if form == "c4":
            found = maps[-1], model.roi_head.shared_head.layer4(maps[-1])
        else:
            found = maps[2], maps[3]
    assert relative_error(found[0], c4) < 1e-4
    assert relative_error(found[1], c5) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name,form", PUBLISHED.items())
def test_every_layer_trains_with_batchnorm_that_updates(name, form):
    cfg = load_config(name)
    set_init_cfg(cfg.model, None)
    model = build(cfg).train()
    frozen = [key for key, value in model.named_parameters() if not value.requires_grad]
    assert not frozen
    norms = {key: m for key, m in model.named_modules() if isinstance(m, _BatchNorm)}
    assert all(m.training for m in norms.values())
    assert all(type(m).__name__ == "SyncBatchNorm" for m in norms.values())
    inside = {key.split(".")[0] for key in norms}
    if name == "mask-rcnn_r50-fpn_1x_coco":
        heads = {key.split(".")[1] for key in norms if key.startswith("roi_head")}
        assert inside == {"backbone", "neck", "roi_head"} and heads == {"bbox_head", "mask_head"}
        assert len(model.roi_head.bbox_head.shared_convs) == 4
        assert len(model.roi_head.bbox_head.shared_fcs) == 1
    elif name == "retinanet_r50-fpn_1x_coco":
        assert inside == {"backbone", "neck"}
    elif form == "c4":
        assert inside == {"backbone", "roi_head"}
        assert "roi_head.shared_head.norm" in norms
    preprocessor = model.data_preprocessor
    assert preprocessor.mean.flatten().tolist() == pytest.approx(IMAGENET_INPUT["mean"])
    assert preprocessor.std.flatten().tolist() == pytest.approx(IMAGENET_INPUT["std"])
    assert preprocessor._channel_conversion  # images are read as BGR
    if form == "dilated":
        assert type(model.backbone).__name__ == "ResNet"
        assert model.backbone.conv1.kernel_size == (7, 7)


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["conv1.weight", "layer4.2.bn3.running_var", "layer2.0.bn1.bias"])
def test_a_checkpoint_with_a_gap_is_refused(lost, exported, tmp_path):
    content = torch.load(exported)
    del content["state_dict"][lost]
    path = tmp_path / "gap.pth"
    torch.save(content, path)
    init = Init("broken", path.name, None, str(path), IMAGENET_INPUT, 50)
    with pytest.raises(UserError, match=lost):
        check_loading(load_config(VOC_C4), [init])


@pytest.mark.slow
def test_c4_counts_layer4_in_the_shared_head(exported):
    cfg = load_config(VOC_C4)
    init = Init("ours", "r50.pth", None, str(exported), IMAGENET_INPUT, 50)
    count = len(torch.load(exported)["state_dict"])
    assert check_loading(cfg, [init])["ours"].startswith(f"{count}/{count} tensors")
    set_init_cfg(cfg.model, None)
    model = build(cfg)
    coverage = load_into(model, torch.load(exported)["state_dict"])
    assert {name.split(".")[0] for name in coverage.added_by_design} == {"norm"}
    weight = model.roi_head.shared_head.layer4[1].conv2.weight
    assert torch.equal(weight, torch.load(exported)["state_dict"]["layer4.1.conv2.weight"])


@pytest.mark.slow
def test_voc0712_data_and_metric(tmp_path):
    """Metainfo is one dict, AP is 11-point at ten thresholds, the schedule is the 24k one."""
    for year, train, test in (("VOC2007", "trainval", "test"), ("VOC2012", "trainval", "val")):
        root = make_voc(tmp_path / year, train=3, val=1)
        lists = root / "ImageSets" / "Main"
        (lists / "train.txt").rename(lists / f"{train}.txt")
        (lists / "val.txt").rename(lists / f"{test}.txt")
        for path in (root / "Annotations").glob("*.xml"):  # VOC's class names
            text = path.read_text().replace("disc", "cat").replace("square", "dog")
            path.write_text(text)
    cfg = load_config(VOC_C4)
    move_data_root(cfg, tmp_path)
    with DefaultScope.overwrite_default_scope("mmdet"):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        metric = METRICS.build(cfg.val_evaluator)
    assert isinstance(dataset.metainfo, dict) and len(dataset.metainfo["classes"]) == 20
    assert len(dataset) == 6
    sides = {dataset[0]["data_samples"].img_shape[0] for _ in range(20)}
    assert sides <= set(range(480, 801, 32)) and len(sides) > 1
    assert metric.iou_thrs == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert isinstance(metric.iou_thrs, list) and metric.eval_mode == "11points"
    assert cfg.train_cfg.max_iters == 24000
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.end, steps.end, list(steps.milestones)) == (100, 24000, [18000, 22000])
    assert cfg.optim_wrapper.optimizer.lr == 0.02 and cfg.transfer.total_batch == 16
    names = [d.data_prefix["sub_data_root"] for d in dataset.datasets]
    assert [Path(name).name for name in names] == ["VOC2007", "VOC2012"]


def test_ade20k_data_and_metric(tmp_path):
    """In ADE20K's layout: mask value 0 is nothing and ignored, 1 is the first of 150 classes."""
    for part in ("training", "validation"):
        for kind in ("images", "annotations"):
            (tmp_path / kind / part).mkdir(parents=True)
        mask = np.zeros((40, 50), np.uint8)
        mask[:, 10:30], mask[:, 30:] = 1, 150
        Image.fromarray(mask).save(tmp_path / "annotations" / part / f"ADE_{part}_1.png")
        Image.new("RGB", (50, 40)).save(tmp_path / "images" / part / f"ADE_{part}_1.jpg")
    cfg = load_config("fcn_r50-d8_80k_ade20k")
    move_data_root(cfg, tmp_path)
    assert not missing_files(cfg)
    with DefaultScope.overwrite_default_scope("mmseg"):
        train = DATASETS.build(cfg.train_dataloader.dataset)
        val = DATASETS.build(cfg.val_dataloader.dataset)
        metric = METRICS.build(cfg.val_evaluator)
    assert (len(train), len(val)) == (1, 1) and len(val.metainfo["classes"]) == 150
    assert max(train[0]["inputs"].shape[1:]) == 512
    truth = val[0]["data_samples"].gt_sem_seg.data[0]
    assert truth[0, [0, 10, 49]].tolist() == [255, 0, 149]
    metric.dataset_meta = val.metainfo
    found = torch.where(truth == 255, 7, truth)
    sample = dict(gt_sem_seg=dict(data=truth[None]), pred_sem_seg=dict(data=found[None]))
    metric.process({}, [sample])
    assert metric.evaluate(1)["densessl/mIoU"] == 100
    (tmp_path / "annotations" / "training").rename(tmp_path / "annotations" / "train")
    assert missing_files(cfg) == [str(tmp_path / "annotations" / "training")]


def test_published_schedules():
    cfg = load_config("mask-rcnn_r50-fpn_1x_coco")
    assert cfg.train_cfg.max_epochs == 12
    assert list(cfg.param_scheduler[1].milestones) == [8, 11]
    resize = next(t for t in cfg.train_pipeline if t.type == "RandomChoiceResize")
    assert resize.scales == [(1333, side) for side in (640, 672, 704, 736, 768, 800)]
    assert cfg.train_dataloader.dataset.pipeline == cfg.train_pipeline
    cfg = load_config("retinanet_r50-fpn_1x_coco")
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.optim_wrapper.optimizer.lr == 0.01 and cfg.transfer.total_batch == 16
    load = next(t for t in cfg.train_dataloader.dataset.pipeline if t.type == "LoadAnnotations")
    assert load == dict(type="LoadAnnotations", with_bbox=True)
    cfg = load_config("fcn_r50-d8_80k_ade20k")
    assert cfg.train_cfg.max_iters == 80000 and cfg.transfer.total_batch == 16
    assert cfg.optim_wrapper.optimizer == dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=5e-4)
    cfg = load_config("fcn_r50-d8_20k_voc12aug")
    assert cfg.train_cfg.max_iters == 20000
    assert cfg.optim_wrapper.optimizer == dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=5e-4)
    assert "aug.txt" in str(cfg.train_dataloader.dataset)
    cfg = load_config("fcn_r50-d8_40k_cityscapes")
    assert cfg.model.test_cfg == dict(mode="slide", crop_size=(769, 769), stride=(513, 513))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_small_configs_train_everything(name):
    cfg = load_config(name)
    set_init_cfg(cfg.model, None)
    model = build(cfg).train()
    assert all(value.requires_grad for value in model.parameters())
    assert all(m.training for m in model.modules() if isinstance(m, _BatchNorm))
    assert model.data_preprocessor._channel_conversion
