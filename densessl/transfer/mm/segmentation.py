"""Parts registered in mmseg: listed masks and unrounded mIoU."""

import json
from pathlib import Path

import torch
from mmseg.datasets import BaseSegDataset
from mmseg.evaluation.metrics import IoUMetric
from mmseg.registry import DATASETS, METRICS

from densessl.transfer.mm import label_subset, precise_bn, to_lab  # noqa: F401  (registered by import)


@DATASETS.register_module()
class ListedMasks(BaseSegDataset):
    """Images and mask PNGs from a list that ``densessl.labels`` has checked.

    Args:
        indices_of: Value in the PNG -> class index, or 255 to ignore it; every value that occurs.
        **options: mmseg's ``BaseSegDataset``; ``ann_file`` is a JSON list of dicts with
            ``img_path`` and ``seg_map_path``, the classes' names are in ``metainfo``.
    """

    def __init__(self, indices_of: dict[str, int], **options):
        self.indices_of = {int(value): index for value, index in indices_of.items()}
        super().__init__(**options)

    def load_data_list(self) -> list[dict]:
        """mmseg's entries."""
        # mmseg passes over the mask once for every entry.
        changed = {value: index for value, index in self.indices_of.items() if value != index}
        common = dict(label_map=changed, reduce_zero_label=False)
        return [
            dict(**entry, **common, seg_fields=[])
            for entry in json.loads(Path(self.ann_file).read_text())
        ]


@METRICS.register_module()
class ExactIoUMetric(IoUMetric):
    """mIoU, mAcc and aAcc in percent, unrounded. Classes that never occur do not count."""

    default_prefix = "densessl"

    def compute_metrics(self, results: list) -> dict[str, float]:
        """mIoU, mAcc and aAcc in percent."""
        intersect, union, _, label = (sum(areas).double() for areas in zip(*results, strict=True))
        return {
            "mIoU": 100 * float(torch.nanmean(intersect / union)),
            "mAcc": 100 * float(torch.nanmean(intersect / label)),
            "aAcc": 100 * float(intersect.sum() / label.sum()),
        }
