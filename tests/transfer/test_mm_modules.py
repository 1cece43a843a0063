"""The parts we add to mmdet and mmseg."""

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, InfiniteSampler
from mmengine.evaluator import Evaluator
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData
from PIL import Image
from torch import nn

from densessl.transfer.mm.label_subset import LabelSubset, subset_indices
from densessl.transfer.mm.precise_bn import PreciseBNHook, update_bn_statistics
from densessl.transfer.mm.to_lab import ToLab
from densessl.transforms.lab import rgb_to_lab


class Net(BaseModel):
    """A convolution, a BatchNorm that trains and one that is frozen in evaluation mode."""

    def __init__(self):
        super().__init__(BaseDataPreprocessor())
        self.conv, self.bn, self.frozen = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def train(self, mode=True):
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, images, mode="loss"):
        return dict(loss=self.frozen(self.bn(self.conv(torch.stack(images)))).mean())


def test_precise_bn_is_the_plain_average_over_the_batches():
    torch.manual_seed(0)
    net = Net().eval()
    net.bn.momentum = 0.3
    batches = [dict(images=list(torch.randn(5, 3, 8, 8) + i)) for i in range(4)]
    before = copy.deepcopy(net.frozen.state_dict())
    weights = net.conv.weight.clone()

    assert update_bn_statistics(net, batches) == 4

    maps = [net.conv(torch.stack(batch["images"])) for batch in batches]
    mean = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
    variance = torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0)
    torch.testing.assert_close(net.bn.running_mean, mean)
    torch.testing.assert_close(net.bn.running_var, variance)
    assert net.bn.momentum == 0.3 and net.bn.num_batches_tracked == 0 and not net.training
    assert torch.equal(net.conv.weight, weights)
    for key, value in net.frozen.state_dict().items():
        assert torch.equal(value, before[key])


def test_to_lab_takes_the_blue_green_red_of_mm():
    bgr = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    lab = ToLab()({"img": bgr, "img_shape": (5, 7)})["img"]
    assert lab.dtype == np.float32 and lab.shape == bgr.shape and lab.flags.c_contiguous
    rgb = torch.tensor(bgr[..., ::-1] / 255.0).permute(2, 0, 1)[None]
    expected = rgb_to_lab(rgb)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(lab, expected, atol=1e-3)


def test_precise_bn_changes_nothing_that_training_draws_next(monkeypatch):
    net, hook = Net(), PreciseBNHook()
    batches = (dict(images=list(torch.randn(5, 3, 8, 8))) for _ in range(2))  # drawn one by one
    monkeypatch.setattr(hook, "_batches", lambda runner: batches)
    wrapper = SimpleNamespace(optim_context=lambda model: nullcontext())
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    hook.before_train(None)
    hook.before_val(SimpleNamespace(model=net, optim_wrapper=wrapper))
    assert net.bn.running_mean.any() and torch.rand(1) == expected


def test_precise_bn_refuses_to_leave_batchnorm_without_statistics():
    with pytest.raises(RuntimeError, match="no batches"):
        update_bn_statistics(Net(), [])


class Images(BaseDataset):
    def load_data_list(self):
        return [dict(number=i) for i in range(12)]

    def prepare_data(self, index):
        generator = torch.Generator().manual_seed(index)
        return dict(images=torch.randn(3, 8, 8, generator=generator) + index)


class Seen(Evaluator):
    """A metric that keeps BatchNorm's statistics at each evaluation."""

    def __init__(self, net):
        super().__init__([])
        self.net, self.means = net, []

    def evaluate(self, size):
        self.means.append(self.net.bn.running_mean.clone())
        return dict(score=1.0)


@pytest.mark.slow
def test_precise_bn_hook_runs_at_every_evaluation(tmp_path):
    """The second evaluation must average over batches too, not find its sampler used up."""
    torch.manual_seed(0)
    net = Net()
    net.val_step = lambda data: [BaseDataElement()]
    seen = Seen(net)
    loader = dict(
        batch_size=4, num_workers=0, sampler=dict(type=InfiniteSampler), dataset=dict(type=Images)
    )
    runner = Runner(
        model=net,
        work_dir=str(tmp_path),
        train_dataloader=loader,
        val_dataloader=dict(
            batch_size=4,
            num_workers=0,
            sampler=dict(type="DefaultSampler", shuffle=False),
            dataset=dict(type=Images),
        ),
        val_evaluator=seen,
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=4, val_interval=2),
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.0)),
        custom_hooks=[dict(type="densessl.PreciseBNHook", num_batches=200)],
        default_hooks=dict(checkpoint=None),
        randomness=dict(seed=3),
        cfg=dict(train_dataloader=loader),
        experiment_name="precise_bn",
    )
    runner.train()
    images = torch.stack([Images()[i]["images"] for i in range(12)])
    expected = net.conv(images).mean((0, 2, 3))  # one pass: all images, whatever their order
    assert len(seen.means) == 2
    for mean in seen.means:
        torch.testing.assert_close(mean, expected)


def test_label_subsets_are_nested_repeatable_and_never_empty():
    for seed in (0, 1):
        small, large = (set(subset_indices(100, f, seed)) for f in (0.1, 0.5))
        assert len(small) == 10 and len(large) == 50 and small < large
        assert subset_indices(100, 0.1, seed) == sorted(small)
    assert subset_indices(100, 0.1, 0) != subset_indices(100, 0.1, 1)
    assert subset_indices(7, 1.0, 5) == list(range(7))
    assert len(subset_indices(20, 0.001, 0)) == 1


def test_label_subset_passes_the_data_set_through():
    whole = Images(metainfo=dict(classes=["a"]))
    part = LabelSubset(whole, 0.25, seed=1)
    chosen = subset_indices(12, 0.25, 1)
    assert len(part) == 3 and part.metainfo["classes"] == ["a"]
    assert [part.get_data_info(i)["number"] for i in range(3)] == chosen


def detections(generator, count=40, classes=3):
    """Random truths and predictions near them, as mmdet's VOC metric keeps them."""
    results = []
    for _ in range(count):
        n = int(generator.integers(1, 4))
        start = generator.uniform(0, 60, (n, 2))
        boxes = np.hstack([start, start + generator.uniform(15, 40, (n, 2))]).astype(np.float32)
        labels = generator.integers(0, classes, n)
        truth = dict(
            bboxes=boxes[1:],
            labels=labels[1:],
            bboxes_ignore=boxes[:1],
            labels_ignore=labels[:1],
        )
        found = []
        for label in range(classes):
            near = boxes[labels == label] + generator.normal(
                0, 4, (int((labels == label).sum()), 4)
            )
            noise = generator.uniform(0, 100, (2, 4))
            noise[:, 2:] += noise[:, :2]
            both = np.vstack([near, noise])
            scores = generator.uniform(0, 1, (len(both), 1))
            found.append(np.hstack([both, scores]).astype(np.float32))
        results.append((truth, found))
    return results


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["11points", "area"])
def test_exact_voc_metric_agrees_with_mmdets(mode):
    from mmdet.evaluation.functional import eval_map

    from densessl.transfer.mm.detection import ExactVOCMetric

    thresholds = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    metric = ExactVOCMetric(iou_thrs=thresholds, eval_mode=mode)
    metric.dataset_meta = dict(classes=("a", "b", "c"))
    results = detections(np.random.default_rng(0))
    ours = metric.compute_metrics(results)
    theirs = [
        eval_map(
            [found for _, found in results],
            [truth for truth, _ in results],
            iou_thr=t,
            logger="silent",
            eval_mode=mode,
            use_legacy_coordinate=True,
            nproc=1,
        )[0]
        for t in thresholds
    ]
    assert ours["AP50"] == pytest.approx(100 * theirs[0], abs=1e-4)
    assert ours["AP75"] == pytest.approx(100 * theirs[5], abs=1e-4)
    assert ours["AP"] == pytest.approx(100 * np.mean(theirs), abs=1e-4)
    assert 5 < ours["AP"] < 95
    metric.dataset_meta = dict(classes=("a", "b", "c", "false"))  # found, and nowhere in the truth
    assert metric.compute_metrics([(truth, [*found, found[0]]) for truth, found in results]) == ours


def test_exact_coco_metric_agrees_with_mmdets(tmp_path):
    from mmdet.evaluation.metrics import CocoMetric

    from densessl.transfer.mm.detection import ExactCocoMetric
    from tests.tiny_sets import make_coco

    root = make_coco(tmp_path / "coco", train=1, val=6)
    file = str(root / "annotations" / "instances_val2017.json")
    generator = np.random.default_rng(0)
    theirs = CocoMetric(ann_file=file, metric=["bbox", "segm"])
    ours = ExactCocoMetric(ann_file=file, metric=["bbox", "segm"])
    samples = []
    for image in theirs._coco_api.loadImgs(theirs._coco_api.getImgIds()):
        truth = theirs._coco_api.loadAnns(theirs._coco_api.getAnnIds(image["id"]))
        boxes = np.array([[*a["bbox"][:2], *np.add(a["bbox"][:2], a["bbox"][2:])] for a in truth])
        masks = np.stack([theirs._coco_api.annToMask(a) for a in truth]).astype(bool)
        shifted = np.roll(masks, int(generator.integers(-3, 4)), axis=2)
        samples.append(
            dict(
                img_id=image["id"],
                ori_shape=(image["height"], image["width"]),
                pred_instances=dict(
                    bboxes=torch.tensor(boxes + generator.normal(0, 3, boxes.shape)).float(),
                    scores=torch.tensor(generator.uniform(0.1, 1, len(truth))).float(),
                    labels=torch.tensor([a["category_id"] - 1 for a in truth]),
                    masks=torch.tensor(shifted),
                ),
            )
        )
    for item in ours._coco_api.dataset["annotations"]:
        del item["iscrowd"]  # as many tools write it
        item["id"] -= 1  # from 0, too
    values = []
    for metric in (theirs, ours):
        metric.dataset_meta = dict(classes=("disc", "square"))
        metric.process({}, samples)
        values.append(metric.compute_metrics(metric.results))
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        for their_key, our_key in (("mAP", "AP"), ("mAP_50", "AP50"), ("mAP_75", "AP75")):
            expected = 100 * values[0][f"{kind}_{their_key}"]
            assert values[1][f"{name}_{our_key}"] == pytest.approx(expected, abs=0.0501)
    assert 1 < values[1]["box_AP"] < 99


def test_exact_coco_metric_without_a_detection_is_zero(tmp_path):
    from densessl.transfer.mm.detection import ExactCocoMetric
    from tests.tiny_sets import make_coco

    root = make_coco(tmp_path / "coco", train=1, val=2)
    metric = ExactCocoMetric(
        ann_file=str(root / "annotations" / "instances_val2017.json"), metric="bbox"
    )
    metric.dataset_meta = dict(classes=("disc", "square"))
    nothing = dict(bboxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0))
    metric.process({}, [dict(img_id=0, ori_shape=(96, 96), pred_instances=nothing)])
    assert metric.compute_metrics(metric.results) == dict(AP=0.0, AP50=0.0, AP75=0.0)


def test_exact_iou_metric_by_hand():
    from densessl.transfer.mm.segmentation import ExactIoUMetric

    metric = ExactIoUMetric()
    metric.dataset_meta = dict(classes=("a", "b", "never"))
    truth = torch.tensor([[0, 0, 0, 1], [1, 1, 255, 255]])
    found = torch.tensor([[0, 0, 1, 1], [1, 0, 0, 1]])
    sample = dict(pred_sem_seg=dict(data=found[None]), gt_sem_seg=dict(data=truth[None]))
    metric.process({}, [sample])
    values = metric.compute_metrics(metric.results)
    # a: 2 right, 3 true, 3 found, union 4. b: 2 right, 3 true, 3 found, union 4.
    assert values["mIoU"] == pytest.approx(50)
    assert values["mAcc"] == pytest.approx(100 * 2 / 3)
    assert values["aAcc"] == pytest.approx(100 * 4 / 6)


def test_res5_extra_norm_is_the_stage_and_one_norm():
    from densessl.transfer.mm.detection import Res5ExtraNorm

    torch.manual_seed(0)
    head = Res5ExtraNorm(depth=50, norm_cfg=dict(type="BN"), norm_eval=False, style="pytorch")
    head.norm.running_mean.uniform_(-1, 1)
    head.norm.running_var.uniform_(0.5, 2)
    head.eval()
    features = torch.randn(1, 1024, 4, 4)
    with torch.no_grad():
        stage, out = head.layer4(features), head(features)
    mean, variance = head.norm.running_mean, head.norm.running_var
    expected = (stage - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    torch.testing.assert_close(out, expected)
    assert (out < 0).any()  # no ReLU after it
    extra = {key for key in head.state_dict() if not key.startswith("layer4.")}
    assert extra == {f"norm.{key}" for key in nn.BatchNorm2d(2048).state_dict()}
    head.train()
    assert head.layer4[0].bn1.training and head.norm.training


def test_predictions_are_drawn_on_the_upright_image(tmp_path, monkeypatch):
    from densessl.transfer.finetune import predictions

    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    Image.new("RGB", (20, 30)).save(path, exif=exif)

    class OneImage(list):
        metainfo = dict(classes=["a"])

        def get_data_info(self, index):
            return {}

    class Finder(nn.Module):
        def test_step(self, data):
            return [SimpleNamespace(img_path=str(path))]

    for name in ("_predicted", "_true"):
        monkeypatch.setattr(predictions, name, lambda picture, found, classes: picture)
    data = OneImage([dict(inputs=None, data_samples=None)])
    drawn = predictions.draw_samples(Finder(), data, tmp_path / "p", tmp_path / "t")
    assert Image.open(drawn["predictions"][0]).size == (30, 20)


def test_a_box_is_drawn_around_its_object():
    from densessl.transfer.finetune.predictions import _paint_objects, colour

    small = Image.new("RGB", (160, 80))  # it grows to 320 pixels
    drawn = _paint_objects(small, np.array([[40.0, 20, 120, 60]]), [1], None, ["a", "b"], [0.5])
    hit = (np.asarray(drawn) == colour(1)).all(2)
    assert hit.shape == (160, 320)
    assert hit[120, 80:241].all() and hit[60:121, 240].all()
    assert not hit[121:].any() and not hit[60:, 241:].any() and not hit[60:, :80].any()


@pytest.mark.parametrize(
    "scores, shown", [([0.9, 0.2, 0.31], [0.9, 0.31]), ([0.1, 0.2], [0.2]), ([], [])]
)
def test_what_a_detector_is_sure_of_is_drawn_or_its_best_guess(monkeypatch, scores, shown):
    from densessl.transfer.finetune import predictions

    seen, labels = [], torch.zeros(len(scores), dtype=torch.long)
    monkeypatch.setattr(predictions, "_paint_objects", lambda *args: seen.append(args[-1]))
    found = InstanceData(bboxes=torch.zeros(len(scores), 4), scores=torch.tensor(scores))
    found.labels = labels
    predictions._predicted(None, BaseDataElement(pred_instances=found), ["a"])
    assert seen == [pytest.approx(shown)]


def test_parts_of_a_model_with_and_without_a_shared_head():
    from densessl.transfer.finetune.inits import coverage_of

    plain = SimpleNamespace(backbone=nn.Conv2d(1, 1, 1))
    assert coverage_of(plain, plain.backbone.state_dict()).complete
    head = nn.Module()
    head.layer4, head.norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)
    with_head = SimpleNamespace(
        backbone=nn.Conv2d(1, 1, 1), roi_head=SimpleNamespace(shared_head=head)
    )
    state = {
        **with_head.backbone.state_dict(),
        **{f"layer4.{key}": value for key, value in head.layer4.state_dict().items()},
    }
    coverage = coverage_of(with_head, state)
    assert coverage.complete
    assert set(coverage.added_by_design) == {f"norm.{key}" for key in head.norm.state_dict()}
    del state["layer4.weight"]
    assert not coverage_of(with_head, state).complete
