"""The device's half of the augmentation: from recorded uint8 views to normalised float views."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn

from densessl.registry import MODELS
from densessl.structures import PackedBatch, ViewBatch, join_records
from densessl.transforms import functional, opencv
from densessl.transforms.functional import blur_kernel_size, normalize
from densessl.transforms.lab import rgb_to_lab

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
LAB_MEAN = (50.0, 6.025, -6.69)
LAB_STD = (50.0, 92.2, 101.2)


class BatchedAugmentation(nn.Module):
    """``functional.augment_view`` as a module, so that it can be compiled in place."""

    def forward(self, images: Tensor, *args) -> Tensor:
        """As there."""
        return functional.augment_view(images, *args)


@MODELS.register_module()
class ViewPreprocessor(BaseDataPreprocessor):
    """Moves a batch to the device and applies the recorded augmentations to each view.

    Args:
        mean: Of the RGB channels, 0..255.
        std: Of the RGB channels, 0..255.

    Attributes:
        channel_order: What the backbone gets; kept in checkpoints beside mean and std.
    """

    channel_order = "RGB"

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD):
        super().__init__(non_blocking=True)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float64), persistent=False)
        self.batched = BatchedAugmentation()

    @property
    def input(self) -> dict:
        """What the backbone gets, as checkpoints keep it: mean, std and channel order."""
        return dict(
            mean=self.mean.tolist(), std=self.std.tolist(), channel_order=self.channel_order
        )

    def cast_data(self, data):
        """``data`` on the device; a batch as the loader gives it is unpacked there."""
        data = super().cast_data(data)
        return data.unpack() if isinstance(data, PackedBatch) else data

    def forward(self, data: ViewBatch | PackedBatch, training: bool = False) -> dict:
        """(B, H, W, 3) uint8 views -> ``ViewBatch`` with (B, 3, H, W) float views."""
        batch = self.cast_data(data)
        views: list[Tensor | None] = [None] * len(batch.views)
        sizes = [view.shape for view in batch.views]
        for size in dict.fromkeys(sizes):  # views of one size together: so many kernels fewer
            places = [place for place, other in enumerate(sizes) if other == size]
            record = join_records(*(batch.records[place] for place in places))
            finished = self.finish(
                torch.cat([batch.views[place] for place in places]).permute(0, 3, 1, 2),
                record.flip,
                record.jitter,
                record.jitter_order,
                record.gray,
                record.blur_sigma,
                record.solarize,
                kernel_size=blur_kernel_size(size[2]),
            )
            for place, view in zip(places, finished.chunk(len(places)), strict=True):
                views[place] = view
        return dict(batch=batch._replace(views=tuple(views)))

    def finish(self, images: Tensor, *drawn: Tensor, kernel_size: int) -> Tensor:
        """One view's augmentation and normalisation; ``drawn`` as ``augment_view`` takes it."""
        return self._augment(images, *drawn, self.mean, self.std, kernel_size)

    def _augment(self, images: Tensor, *args) -> Tensor:
        on_cpu = images.device.type == "cpu"
        return (opencv.augment_view if on_cpu else self.batched)(images, *args)


@MODELS.register_module()
class LabPreprocessor(ViewPreprocessor):
    """As ``ViewPreprocessor``, but the views end as normalised L, a and b.

    Args:
        mean: Of L in 0..100, a and b.
        std: Of L in 0..100, a and b.
    """

    channel_order = "Lab"

    def __init__(self, mean: Sequence[float] = LAB_MEAN, std: Sequence[float] = LAB_STD):
        super().__init__(mean, std)

    def finish(self, images: Tensor, *drawn: Tensor, kernel_size: int) -> Tensor:
        black = self.mean.new_zeros(3)
        rgb = self._augment(images, *drawn, black, black + 255, kernel_size)
        return normalize(rgb_to_lab(rgb), self.mean.to(rgb), self.std.to(rgb))
