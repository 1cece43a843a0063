"""Colour augmentation of whole batches, each image with parameters of its own.

Pure functions on tensors: no state, no random numbers. Images are float (B, 3, H, W) in [0, 1],
parameters are (B,) tensors on the same device. Each function equals the one of
``torchvision.transforms.v2.functional`` applied image by image, and each has a neutral parameter
that leaves an image exactly as it is. Arguments are never written to; where nothing changes, the
argument itself may be returned. Parameters are not checked: that would make the host wait.

Every image goes through every operation, whether drawn for it or not: right for an accelerator.
On a CPU ``opencv.augment_view`` does the same image by image in a ninth of the time.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_SIGMA_AT_224 = 2.0
"""Largest blur sigma at side 224; it scales with the side."""

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
"""The operations of ``color_jitter``: columns of ``factors``, values of ``order``."""

GRAY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in a gray value."""

_STRIP = 32  # rows or columns that the matrix of the blur makes at once


def hflip(images: Tensor, flip: Tensor) -> Tensor:
    """Mirrors left to right where ``flip`` (B,) bool is true. Any dtype."""
    return torch.where(_per_image(flip), images.flip(-1), images)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turns the hue of HSV space by ``shift`` (B,) in [-0.5, 0.5] turns; 0 is neutral.

    Value and chroma stay, so only the place on the hue hexagon is computed. With the channels
    stretched to span [0, 1], the distance from red is ``1 + g + b - r`` sixths of a turn, on
    green's side where ``g > b``. The way back: a channel is 2 minus the distance from its primary
    in sixths, clamped to [0, 1].
    """
    shift = _per_image(shift)
    r, g, b = images.split(1, dim=1)
    high = torch.maximum(torch.maximum(r, g), b)
    low = torch.minimum(torch.minimum(r, g), b)
    # Kept from 0 for the division; a gray pixel comes back whole by the clamps at the end.
    chroma = (high - low).clamp_(min=1e-12)
    slope = 6 * chroma
    hue = (g + b).sub_(r).sub_(low).div_(slope).add_(1 / 6)
    hue.copysign_(g - b).add_(shift + 1).frac_()
    # low + chroma * clamp(...), with the clamp moved outside. Red lies at both ends of [0, 1): its
    # distance is taken from cyan, opposite.
    channels = [torch.addcmul(low - chroma, (hue - 1 / 2).abs_(), slope)]
    for primary in (1 / 3, 2 / 3):
        channels.append(torch.addcmul(high + chroma, (hue - primary).abs_(), slope, value=-1))
    turned = torch.cat(channels, 1).clamp_(low, high)
    return torch.where(shift != 0, turned, images)


def color_jitter(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, in an order of its own for each image.

    Hue costs most and comes once in each image's order, so it is done once for the batch, between
    all that comes before it and all that comes after it.

    Args:
        images: (B, 3, H, W) in [0, 1].
        factors: (B, 4) brightness, contrast and saturation factor, hue shift; neutral: 1, 1, 1, 0.
        order: (B, 4) permutation of 0..3: the columns of ``factors`` in order of application.

    Returns:
        (B, 3, H, W), clamped to [0, 1] after each operation.
    """
    order = order.long()
    place = torch.arange(4, device=order.device)
    hue_place = (order == HUE).long().argmax(1, keepdim=True)
    ordered = factors.gather(1, order)
    # A step that is on the other side of hue, or is hue itself, is neutral: 1, 0, 0.
    before = ordered.where(place < hue_place, 1)
    after = ordered.where(place > hue_place, 1)
    for step in range(3):
        images = _step(images, before[:, step], order[:, step])
    images = adjust_hue(images, factors[:, HUE])
    for step in range(1, 4):
        images = _step(images, after[:, step], order[:, step])
    return images


def to_grayscale(images: Tensor, gray: Tensor) -> Tensor:
    """Replaces the channels by ``.2989 r + .587 g + .114 b`` where ``gray`` (B,) bool is true."""
    return torch.where(_per_image(gray), _gray(images), images)


def blur_kernel_size(side: int) -> int:
    """Odd number of blur taps that reaches 3 sigma at the largest sigma: 13 at side 224."""
    return max(3, 2 * math.ceil(3 * MAX_SIGMA_AT_224 * side / 224) + 1)


def check_kernel_size(kernel_size: int, size: tuple[int, int]) -> None:
    """Looks whether a blur of so many taps is possible on images of (height, width) pixels.

    Raises:
        ValueError: ``kernel_size`` is not odd and positive, or too large.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}")
    if kernel_size // 2 >= min(size):
        raise ValueError(f"{kernel_size} taps are too many for {size[0]} x {size[1]} pixels")


def gaussian_blur(images: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Gaussian blur with reflected borders, in float32 also under autocast.

    A blur is the product with a banded matrix whose blocks along the diagonal are all the same. So
    the padded image is cut into overlapping strips that share one small matrix, at a fraction of
    the full product's work. On CUDA, allowing TF32 products costs it up to a thousandth; they are
    off by default.

    Args:
        images: (B, 3, H, W) in [0, 1].
        sigma: (B,) in pixels; 0 or less leaves an image as it is.
        kernel_size: Number of taps, odd; 1 leaves all images as they are.

    Raises:
        ValueError: ``kernel_size`` is not odd and positive, or too large for the images' sides.
    """
    check_kernel_size(kernel_size, images.shape[-2:])
    if kernel_size == 1:
        return images
    offsets = torch.arange(kernel_size, device=sigma.device) - kernel_size // 2
    # At the lowest sigma all weight is on the centre, and the image stays exactly as it is.
    precision = 0.5 / sigma.float().clamp(min=0.01).square()
    taps = torch.softmax(-offsets.square() * precision[:, None], dim=1)
    vertical, horizontal = (_blur_matrix(taps, side) for side in images.shape[-2:])
    with torch.autocast(images.device.type, enabled=False):
        strips = _strips(images, 3, horizontal)
        blurred = (strips.flatten(1, -2) @ horizontal.mT).view(images.shape)
        strips = _strips(blurred, 2, vertical)
        return (vertical[:, None, None] @ strips.mT).view(images.shape)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Inverts the values from ``threshold`` (B,) upwards; a threshold above 1 is neutral."""
    return torch.where(images >= _per_image(threshold), 1 - images, images)


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``(images - mean) / std`` with ``mean`` and ``std`` (3,), in the units of the images."""
    return (images - mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))


def augment_view(
    images: Tensor,
    flip: Tensor,
    factors: Tensor,
    order: Tensor,
    gray: Tensor,
    sigma: Tensor,
    solarize_threshold: Tensor,
    mean: Tensor,
    std: Tensor,
    kernel_size: int,
) -> Tensor:
    """Everything between the cropped view and the network, in the field's order.

    Flip, colour jitter, grayscale, blur, solarize, normalise (MoCo v2, SimCLR, BYOL). All tensors
    are on one device.

    Args:
        images: (B, 3, H, W) uint8, of any strides.
        flip: (B,) bool.
        factors: (B, 4), see ``color_jitter``.
        order: (B, 4), see ``color_jitter``.
        gray: (B,) bool.
        sigma: (B,) blur in pixels, 0 for none.
        solarize_threshold: (B,) in [0, 1], above 1 for none.
        mean: (3,) in units of 0..255.
        std: (3,) in units of 0..255.
        kernel_size: Taps of the blur; 1 where no image is ever blurred.

    Returns:
        (B, 3, H, W) float32 in channels-last memory format.

    Raises:
        ValueError: As ``gaussian_blur``.
    """
    x = hflip(images, flip).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    x = to_grayscale(color_jitter(x, factors, order), gray)
    x = solarize(gaussian_blur(x, sigma, kernel_size), solarize_threshold)
    x = normalize(x, mean.float() / 255, std.float() / 255)
    return x.contiguous(memory_format=torch.channels_last)


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _gray(images: Tensor) -> Tensor:
    """Gray values, (B, 1, H, W)."""
    r, g, b = images.split(1, dim=1)
    return (r * GRAY[0]).add_(g, alpha=GRAY[1]).add_(b, alpha=GRAY[2])


def _step(images: Tensor, factor: Tensor, operation: Tensor) -> Tensor:
    """Brightness, contrast or saturation, as ``operation`` (B,) says."""
    factor, operation = _per_image(factor), _per_image(operation)
    rest = 1 - factor
    return _blend(images, factor, rest * (operation == CONTRAST), rest * (operation == SATURATION))


def _blend(images: Tensor, factor: Tensor, to_mean: Tensor, to_gray: Tensor) -> Tensor:
    """``factor`` of the image, ``to_mean`` of its mean gray, ``to_gray`` of its gray, clamped."""
    # The mean of the gray image is the gray of the mean.
    mean = _gray(images.mean((2, 3), keepdim=True))
    offset = _gray(images).mul_(to_gray).add_(mean.mul_(to_mean))
    return (images * factor).add_(offset).clamp_(0, 1)


def _blur_matrix(taps: Tensor, side: int) -> Tensor:
    """(B, K) taps -> (B, L, L + K - 1), which blurs a strip; L divides the side."""
    count = taps.shape[1]
    length = next(n for n in range(min(side, _STRIP), side + 1) if side % n == 0)
    width = length + count - 1
    # Taps and then zeros, repeated with a period one longer than the matrix is wide: in each row
    # they stand one further to the right.
    rows = F.pad(taps, (0, length)).repeat(1, length)[:, : length * width]
    return rows.reshape(-1, length, width)


def _strips(images: Tensor, dim: int, matrix: Tensor) -> Tensor:
    """Overlapping strips across ``dim`` of the reflected images; their width is the last axis."""
    length, width = matrix.shape[1:]
    radius = (width - length) // 2
    padding = (radius, radius, 0, 0) if dim == 3 else (0, 0, radius, radius)
    return F.pad(images, padding, mode="reflect").unfold(dim, width, length)
