"""The plain ways of doing what is fast here, as they are usually written: same results, slower."""

import io
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
import torchvision.transforms.v2.functional as TF
from mmengine.dist import get_rank
from PIL import Image
from torch import Tensor, nn
from torchvision.io import ImageReadMode, decode_jpeg

from densessl.models.distributed import gather
from densessl.structures import SampleKey, ViewBatch, ViewRecord
from densessl.transforms.decode import read_image
from densessl.transforms.functional import blur_kernel_size
from densessl.transforms.views import MultiView, Plan

DECODERS: dict[str, Callable[[bytes], np.ndarray]] = {
    "torchvision": lambda file: (
        decode_jpeg(torch.frombuffer(bytearray(file), dtype=torch.uint8), ImageReadMode.RGB)
        .permute(1, 2, 0)
        .numpy()
    ),
    "pillow": lambda file: np.asarray(Image.open(io.BytesIO(file)).convert("RGB")),
    "opencv": lambda file: cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR_RGB),
}
"""From a JPEG's bytes to (H, W, 3) uint8."""

JITTER = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
NEUTRAL = (1, 1, 1, 0)


def decode_for_each_view(transform: MultiView, file: bytes, key: SampleKey) -> list[Tensor]:
    """Views as ``transform`` makes them, but each decodes the file for itself."""
    plan = transform.plan(file, key)
    return _cut(plan, lambda: read_image(file, plan.scale))


def decode_whole(transform: MultiView, file: bytes, key: SampleKey) -> list[Tensor]:
    """Views as ``transform`` makes them, but from all of the file's pixels."""
    image = read_image(file)
    return _cut(transform.plan(file, key), lambda: image)


def _cut(plan: Plan, image: Callable[[], np.ndarray]) -> list[Tensor]:
    return [
        pixels
        for view, record, rng in zip(plan.views, plan.records, plan.rngs, strict=True)
        for pixels, _ in view.cut(image(), record, rng)
    ]


def crop_with_pillow(transform: MultiView, file: bytes, key: SampleKey) -> list[Tensor]:
    """The same crops by Pillow, bilinear and antialiased too; a view's patches are not cut."""
    plan = transform.plan(file, key)
    image = Image.fromarray(read_image(file, plan.scale))
    views = []
    for view, record in zip(plan.views, plan.records, strict=True):
        scale = np.divide(image.size, record.source_size)
        box = (np.reshape(record.box, (2, 2)) * scale).round().ravel().tolist()
        made = image.crop(box).resize((view.size, view.size), Image.Resampling.BILINEAR)
        views.append(torch.from_numpy(np.array(made)))
    return views


def color_with_torchvision(
    batch: ViewBatch, mean: Sequence[float], std: Sequence[float]
) -> tuple[Tensor, ...]:
    """The views of ``batch`` as ``ViewPreprocessor`` makes them, (B, 3, H, W) float each."""
    return tuple(
        torch.stack(
            [
                _color_one(image, ViewRecord(*values), mean, std)
                for image, *values in zip(view, *(field.tolist() for field in record), strict=True)
            ]
        )
        for view, record in zip(batch.views, batch.records, strict=True)
    )


def _color_one(
    image: Tensor, record: ViewRecord, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    image = image.permute(2, 0, 1)
    image = (TF.hflip(image) if record.flip else image).float() / 255
    for number in record.jitter_order:
        if record.jitter[number] != NEUTRAL[number]:
            image = JITTER[number](image, record.jitter[number])
    if record.gray:
        image = TF.rgb_to_grayscale(image, num_output_channels=3)
    if record.blur_sigma > 0:
        size = blur_kernel_size(image.shape[-1])
        image = TF.gaussian_blur(image, [size, size], [record.blur_sigma] * 2)
    if record.solarize <= 1:
        image = TF.solarize(image, record.solarize)
    return TF.normalize(image, [m / 255 for m in mean], [s / 255 for s in std])


class _BatchNorm(nn.BatchNorm2d):
    """Another type, which ``norm_act`` leaves to PyTorch."""


def norms_by_pytorch(network: nn.Module) -> nn.Module:
    """``network`` with its BatchNorms as PyTorch computes them."""
    for layer in network.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = _BatchNorm
    return network


@torch.no_grad()
def follow_one_by_one(method: nn.Module) -> None:
    """What ``Teacher.update`` does, parameter by parameter."""
    share = method.teacher.momentum
    for name, copied in method.teacher.named_children():
        for own, followed in zip(
            copied.parameters(), getattr(method, name).parameters(), strict=True
        ):
            own.mul_(share).add_(followed, alpha=1 - share)


def shuffle_by_gathering(views: Tensor, seed: int) -> Tensor:
    """What ``BatchShuffle`` does, as MoCo's paper has it: every rank gets all views, (B, ...) each,
    and takes its part."""
    everyone = gather(views)
    order = torch.randperm(len(everyone), generator=torch.Generator().manual_seed(seed))
    return everyone[order.view(-1, len(views))[get_rank()]]
