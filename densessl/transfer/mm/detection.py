"""Parts registered in mmdet: the C5 head with the extra norm, listed data, unrounded metrics."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from mmcv.cnn import build_norm_layer
from mmdet.datasets import BaseDetDataset
from mmdet.datasets.api_wrappers import COCOeval
from mmdet.evaluation.functional.mean_ap import average_precision, tpfp_default
from mmdet.evaluation.metrics import CocoMetric, VOCMetric
from mmdet.models.roi_heads.shared_heads import ResLayer
from mmdet.registry import DATASETS, METRICS, MODELS
from torch import Tensor

from densessl.transfer.mm import label_subset, precise_bn, to_lab  # noqa: F401  (registered by import)

PREFIX = "densessl"


@MODELS.register_module()
class Res5ExtraNorm(ResLayer):
    """ResNet's last stage as a shared head on C4 features, followed by one more norm.

    With BatchNorm trained, the head's output needs the norm that a frozen net does without
    (MoCo, arXiv 1911.05722, section 4.2). No ReLU follows it.

    Args:
        norm_cfg: Of the stage and of the extra norm.
        **options: mmdet's ``ResLayer``.
    """

    def __init__(self, norm_cfg: dict, **options):
        super().__init__(norm_cfg=norm_cfg, **options)
        stage = getattr(self, f"layer{self.stage + 1}")
        last = stage[-1]
        self.norm = build_norm_layer(norm_cfg, last.planes * last.expansion)[1]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C4, H, W) -> (N, C5, H/2, W/2)."""
        return self.norm(super().forward(x))


@DATASETS.register_module()
class ListedBoxes(BaseDetDataset):
    """Images and boxes from a list that ``densessl.labels`` has read and checked.

    ``ann_file`` is a JSON list of mmdet's own entries: img_path, img_id, height, width, instances.
    """

    def load_data_list(self) -> list[dict]:
        """The list as it is."""
        return json.loads(Path(self.ann_file).read_text())


@METRICS.register_module()
class ExactVOCMetric(VOCMetric):
    """mmdet's VOC evaluation, as AP (mean over ``iou_thrs``), AP50, AP75 in percent, unrounded.

    mmdet rounds to .1 %, half the noise between two seeds.

    Args:
        iou_thrs: A list that holds .5 and .75.
        **options: mmdet's ``VOCMetric``, above all ``eval_mode``.
    """

    default_prefix = PREFIX

    def compute_metrics(self, results: list) -> dict[str, float]:
        """AP, AP50 and AP75 in percent."""
        aps = {threshold: [] for threshold in self.iou_thrs}
        for label in range(len(self.dataset_meta["classes"])):
            images = [_of_class(truth, found, label) for truth, found in results]
            positives = sum(len(boxes) for boxes, _, _ in images)
            if positives:
                for threshold, values in aps.items():
                    values.append(self._average_precision(images, positives, threshold))
        mean = {threshold: 100 * float(np.mean(v)) if v else 0.0 for threshold, v in aps.items()}
        return {"AP": float(np.mean(list(mean.values()))), "AP50": mean[0.5], "AP75": mean[0.75]}

    def _average_precision(self, images: list, positives: int, threshold: float) -> float:
        right, wrong, scores = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
        for boxes, ignored, found in images:
            if len(found) == 0:
                continue
            # VOC's own evaluation counts pixels: a box's width is x2 - x1 + 1.
            tp, fp = tpfp_default(
                found, boxes, ignored, iou_thr=threshold, use_legacy_coordinate=True
            )
            right.append(tp[0])
            wrong.append(fp[0])
            scores.append(found[:, -1])
        order = np.argsort(-np.concatenate(scores), kind="stable")
        true = np.cumsum(np.concatenate(right)[order])
        false = np.cumsum(np.concatenate(wrong)[order])
        recall = true / positives
        precision = true / np.maximum(true + false, np.finfo(np.float32).eps)
        return float(np.squeeze(average_precision(recall, precision, self.eval_mode)))


def _of_class(truth: dict, found: list, label: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    boxes = truth["bboxes"][truth["labels"] == label]
    ignored = truth["bboxes_ignore"][truth["labels_ignore"] == label]
    return boxes, ignored, found[label]


@METRICS.register_module()
class ExactCocoMetric(CocoMetric):
    """COCO's AP, AP50, AP75 in percent, unrounded; named ``box_`` and ``mask_`` where both are."""

    default_prefix = PREFIX

    def compute_metrics(self, results: list) -> dict[str, float]:
        """AP, AP50 and AP75 of boxes, and of masks if asked for, in percent."""
        for number, item in enumerate(self._coco_api.dataset["annotations"], 1):
            item["iscrowd"] = item.get("iscrowd") or 0  # pycocotools needs it, many files lack it
            item["id"] = number  # to pycocotools a match with 0 is none
        self._coco_api.createIndex()
        predictions = [found for _, found in results]
        self.cat_ids = self._coco_api.get_cat_ids(cat_names=self.dataset_meta["classes"])
        self.img_ids = self._coco_api.get_img_ids()
        values = {}
        with TemporaryDirectory() as folder:
            files = self.results2json(predictions, f"{folder}/results")
            for kind in self.metrics:
                name = {"bbox": "box_", "segm": "mask_"}[kind] if len(self.metrics) > 1 else ""
                found = json.loads(Path(files[kind]).read_text())
                for key, value in zip(
                    ("AP", "AP50", "AP75"), self._evaluate(kind, found), strict=True
                ):
                    values[name + key] = value
        return values

    def _evaluate(self, kind: str, found: list[dict]) -> tuple[float, float, float]:
        if not found:
            return 0.0, 0.0, 0.0
        evaluation = COCOeval(self._coco_api, self._coco_api.loadRes(found), kind)
        evaluation.params.catIds, evaluation.params.imgIds = self.cat_ids, self.img_ids
        evaluation.evaluate()
        evaluation.accumulate()
        # (threshold, recall, class, area, detections): all areas, 100 detections an image
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
        cuts = (precision, precision[0], precision[5])  # .5:.95, .5, .75
        return tuple(100 * float(cut[cut > -1].mean()) if (cut > -1).any() else 0.0 for cut in cuts)
