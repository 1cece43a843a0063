"""The device's half of the augmentation: from recorded uint8 views to normalised float views."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor

from densessl.registry import MODELS
from densessl.structures import ViewBatch
from densessl.transforms.functional import augment_view, blur_kernel_size

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@MODELS.register_module()
class ViewPreprocessor(BaseDataPreprocessor):
    """Moves a batch to the device and applies the recorded augmentations to each view.

    Args:
        mean: Of the RGB channels, 0..255.
        std: Of the RGB channels, 0..255.
    """

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD):
        super().__init__(non_blocking=True)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float64), persistent=False)

    def forward(self, data: ViewBatch, training: bool = False) -> dict:
        """``ViewBatch`` of (B, H, W, 3) uint8 views -> the same with (B, 3, H, W) float views."""
        batch = self.cast_data(data)
        views = tuple(
            augment_view(
                view.permute(0, 3, 1, 2),
                record.flip,
                record.jitter,
                record.jitter_order,
                record.gray,
                record.blur_sigma,
                record.solarize,
                self.mean,
                self.std,
                blur_kernel_size(view.shape[2]),
            )
            for view, record in zip(batch.views, batch.records, strict=True)
        )
        return dict(batch=batch._replace(views=views))
