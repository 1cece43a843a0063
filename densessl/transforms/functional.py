"""Colour augmentation of whole batches, each image with parameters of its own.

Pure functions on tensors: no state, no random numbers. Images are float (B, 3, H, W) in [0, 1],
parameters are (B,) tensors on the same device. Each function equals the one of
``torchvision.transforms.v2.functional`` applied image by image, and each has a neutral parameter
that leaves an image exactly as it is. Arguments are never written to; where nothing changes, the
argument itself may be returned. Parameters are not checked: that would make the host wait.

``augment_view`` takes the whole batch at once on an accelerator. On a CPU it goes image by image:
the temporaries stay in the core's cache, several times faster, and an image pays only for what was
drawn for it. Both are the same code: the private functions take a parameter as a (B, 1, 1, 1)
tensor, or as a plain number for a single image, and only a plain number is ever looked at.
"""

import math
from collections.abc import Callable
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_SIGMA_AT_224 = 2.0
"""Largest blur sigma at side 224; it scales with the side."""

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
"""The operations of ``color_jitter``: columns of ``factors``, values of ``order``."""

_STRIP = 32  # rows or columns that the matrix of the blur makes at once: measured best on a CPU

Value = Tensor | float
"""A parameter: (B, 1, 1, 1) for a batch, or a plain number for a single image."""


def hflip(images: Tensor, flip: Tensor) -> Tensor:
    """Mirrors left to right where ``flip`` (B,) bool is true. Any dtype."""
    return _flip(images, _per_image(flip))


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiplies by ``factor`` (B,) >= 0 and clamps; 1 is neutral."""
    return _blend(images, _per_image(factor), 0.0, 0.0)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blends with the mean gray, ``factor * x + (1 - factor) * mean``, clamps; 1 is neutral."""
    return _blend(images, _per_image(factor), _per_image(1 - factor), 0.0)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blends with the gray image, ``factor * x + (1 - factor) * gray``, clamps; 1 is neutral."""
    return _blend(images, _per_image(factor), 0.0, _per_image(1 - factor))


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turns the hue of HSV space by ``shift`` (B,) in [-0.5, 0.5] turns; 0 is neutral."""
    return _turn_hue(images, _per_image(shift))


def color_jitter(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, in an order of its own for each image.

    Args:
        images: (B, 3, H, W) in [0, 1].
        factors: (B, 4) brightness, contrast and saturation factor, hue shift; neutral: 1, 1, 1, 0.
        order: (B, 4) permutation of 0..3: the columns of ``factors`` in order of application.

    Returns:
        (B, 3, H, W), clamped to [0, 1] after each operation.
    """
    return _jitter(images, _nested(_jitter_plan(factors, order)), _per_image(factors[:, HUE]))


def to_grayscale(images: Tensor, gray: Tensor) -> Tensor:
    """Replaces the channels by ``.2989 r + .587 g + .114 b`` where ``gray`` (B,) bool is true."""
    return _decolor(images, _per_image(gray))


def blur_kernel_size(side: int) -> int:
    """Odd number of blur taps that reaches 3 sigma at the largest sigma: 13 at side 224."""
    return max(3, 2 * math.ceil(3 * MAX_SIGMA_AT_224 * side / 224) + 1)


def gaussian_blur(images: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Gaussian blur with reflected borders, in float32 also under autocast.

    On CUDA, allowing TF32 products costs it up to a thousandth; they are off by default.

    Args:
        images: (B, 3, H, W) in [0, 1].
        sigma: (B,) in pixels; 0 or less leaves an image as it is.
        kernel_size: Number of taps, odd; 1 leaves all images as they are.

    Raises:
        ValueError: ``kernel_size`` is not odd and positive, or too large for the images' sides.
    """
    matrices = _blur_matrices(sigma, kernel_size, images.shape[-2:])
    return _blur(images, _per_image(sigma), matrices)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Inverts the values from ``threshold`` (B,) upwards; a threshold above 1 is neutral."""
    return _invert_bright(images, _per_image(threshold))


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
    mean, std = mean.float() / 255, std.float() / 255
    matrices = _blur_matrices(sigma, kernel_size, images.shape[-2:])
    result = torch.empty(images.shape, device=images.device, memory_format=torch.channels_last)
    drawn = (flip, _jitter_plan(factors, order), factors[:, HUE], gray, sigma, solarize_threshold)
    if images.device.type == "cpu":
        parts = [slice(i, i + 1) for i in range(len(images))]
        values = list(zip(*(parameter.tolist() for parameter in drawn), strict=True))
    else:
        parts = [slice(None)]
        values = [[_nested(parameter) for parameter in drawn]]
    with one_thread():
        for part, (mirror, plan, shift, bare, blur, threshold) in zip(parts, values, strict=True):
            x = _flip(images[part], mirror)
            x = x.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
            x = _decolor(_jitter(x, plan, shift), bare)
            x = _blur(x, blur, [matrix[part] for matrix in matrices])
            result[part] = normalize(_invert_bright(x, threshold), mean, std)
    return result


@contextmanager
def one_thread():
    """Keeps torch to one thread, without effect on an accelerator.

    The operations on one image take microseconds. Sharing them among threads gains a fifth on an
    idle machine and costs a hundredfold where data workers use the cores: every operation then
    waits for a thread that is not running.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _nested(parameter: Tensor) -> Tensor | list:
    """(B, ...) to nested lists, as ``tolist`` makes of one image's, with (B, 1, 1, 1) inside."""
    if parameter.dim() == 1:
        return _per_image(parameter)
    return [_nested(part) for part in parameter.unbind(1)]


def _where(condition: Value, change: Callable[[], Tensor], images: Tensor) -> Tensor:
    if isinstance(condition, Tensor):
        return torch.where(condition, change(), images)
    return change() if condition else images


def _is(value: Value, neutral: float) -> bool:
    """Whether a parameter is known to be neutral."""
    return not isinstance(value, Tensor) and value == neutral


def _flip(images: Tensor, flip: Value) -> Tensor:
    return _where(flip, lambda: images.flip(-1), images)


def _gray(images: Tensor) -> Tensor:
    """Gray values, (B, 1, H, W)."""
    r, g, b = images.split(1, dim=1)
    return (r * 0.2989).add_(g, alpha=0.587).add_(b, alpha=0.114)


def _decolor(images: Tensor, gray: Value) -> Tensor:
    return _where(gray, lambda: _gray(images).expand_as(images), images)


def _blend(
    images: Tensor, factor: Value, to_mean: Value, to_gray: Value, out: Tensor | None = None
) -> Tensor:
    """``factor`` of the image, ``to_mean`` of its mean gray, ``to_gray`` of its gray, clamped."""
    offset = None
    if not _is(to_mean, 0):
        # The mean of the gray image is the gray of the mean.
        offset = _gray(images.mean((2, 3), keepdim=True)).mul_(to_mean)
    if not _is(to_gray, 0):
        gray = _gray(images).mul_(to_gray)
        offset = gray if offset is None else gray.add_(offset)
    result = torch.mul(images, factor, out=out)
    if offset is not None:
        result += offset
    return result.clamp_(0, 1)


def _jitter_plan(factors: Tensor, order: Tensor) -> Tensor:
    """What ``_jitter`` does, as (B, 2, 3, 3): per half and step the weights of ``_blend``.

    Hue costs most and comes once in each image's order, so it is done once for the batch, between
    all that comes before it (the first half, steps 0..2) and all that comes after it (the second
    half, steps 1..3). A step that is in the other half, or is hue, is neutral: 1, 0, 0.
    """
    order = order.long()
    place = torch.arange(4, device=order.device)
    hue_place = (order == HUE).long().argmax(1, keepdim=True)
    factors = factors.gather(1, order)
    halves = []
    for active, steps in ((place < hue_place, slice(0, 3)), (place > hue_place, slice(1, 4))):
        factor = torch.where(active, factors, 1)[:, steps]
        kind, rest = order[:, steps], 1 - factor
        halves.append(
            torch.stack((factor, rest * (kind == CONTRAST), rest * (kind == SATURATION)), -1)
        )
    return torch.stack(halves, 1)


def _jitter(images: Tensor, plan: list, shift: Value) -> Tensor:
    result = images
    before, after = plan
    for half in (before, after):
        if half is after:
            result = _turn_hue(result, shift)
        for factor, to_mean, to_gray in half:
            if not _is(factor, 1):
                own = None if result is images else result
                result = _blend(result, factor, to_mean, to_gray, out=own)
    return result


def _turn_hue(images: Tensor, shift: Value) -> Tensor:
    """Value and chroma stay, so only the place on the hue hexagon is computed.

    With the channels stretched to span [0, 1], the distance from red is ``1 + g + b - r`` sixths of
    a turn, on green's side where ``g > b``. The way back: a channel is 2 minus the distance from
    its primary in sixths, clamped to [0, 1].
    """
    if _is(shift, 0):
        return images
    r, g, b = images.split(1, dim=1)
    high, low = torch.maximum(r, g), torch.minimum(r, g)
    torch.maximum(high, b, out=high)
    torch.minimum(low, b, out=low)
    # Kept from 0 for the division; a gray pixel comes back whole by the clamps at the end.
    chroma = (high - low).clamp_(min=1e-12)
    slope = 6 * chroma
    hue = (g + b).sub_(r).sub_(low).div_(slope).add_(1 / 6)
    value = g - b
    hue.copysign_(value).add_(shift + 1).frac_()

    result = torch.empty_like(images)
    red, green, blue = result.split(1, dim=1)
    # low + chroma * clamp(...), with the clamp moved outside. Red lies at both ends of [0, 1): its
    # distance is taken from cyan, opposite.
    torch.sub(hue, 1 / 2, out=value).abs_()
    torch.addcmul(low - chroma, value, slope, out=value)
    torch.clamp(value, low, high, out=red)
    top = chroma.add_(high)
    for channel, primary in ((green, 1 / 3), (blue, 2 / 3)):
        torch.sub(hue, primary, out=value).abs_()
        torch.addcmul(top, value, slope, value=-1, out=value)
        torch.clamp(value, low, high, out=channel)
    return _where(shift != 0, lambda: result, images)


def _invert_bright(images: Tensor, threshold: Value) -> Tensor:
    def change() -> Tensor:
        bright = images.clone().ge_(threshold)  # 0 or 1; on a CPU far faster than torch.where
        return bright.sub_(images).abs_()

    return _where(threshold <= 1, change, images)


def _blur_matrices(sigma: Tensor, kernel_size: int, size: tuple[int, int]) -> list[Tensor]:
    """The matrices that blur strips of the images, for the vertical and the horizontal direction.

    A blur is the product with a banded matrix whose blocks along the diagonal are all the same. So
    the padded image is cut into overlapping strips that share one small matrix, at a fraction of
    the full product's work.

    Returns:
        For each direction (B, L, L + kernel_size - 1), L dividing the side; none if no blur.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}")
    if kernel_size // 2 >= min(size):
        raise ValueError(f"{kernel_size} taps are too many for {size[0]} x {size[1]} pixels")
    if kernel_size == 1:
        return []
    offsets = torch.arange(kernel_size, device=sigma.device) - kernel_size // 2
    # At the lowest sigma all weight is on the centre, and the image stays exactly as it is.
    precision = 0.5 / sigma.float().clamp(min=0.01).square()
    taps = torch.softmax(-offsets.square() * precision[:, None], dim=1)
    matrices = []
    for side in size:
        length = next(n for n in range(min(side, _STRIP), side + 1) if side % n == 0)
        width = length + kernel_size - 1
        # Taps and then zeros, repeated with a period one longer than the matrix is wide: in each
        # row they stand one further to the right.
        rows = F.pad(taps, (0, length)).repeat(1, length)[:, : length * width]
        matrices.append(rows.reshape(-1, length, width))
    return matrices


def _blur(images: Tensor, sigma: Value, matrices: list[Tensor]) -> Tensor:
    if not matrices or (not isinstance(sigma, Tensor) and sigma <= 0):
        return images
    vertical, horizontal = matrices
    with torch.autocast(images.device.type, enabled=False):
        strips = _strips(images, 3, horizontal)
        rows = strips.reshape(len(images), -1, strips.shape[-1])
        blurred = (rows @ horizontal.mT).view(images.shape)
        strips = _strips(blurred, 2, vertical)
        return (vertical[:, None, None] @ strips.mT).view(images.shape)


def _strips(images: Tensor, dim: int, matrix: Tensor) -> Tensor:
    """Overlapping strips across ``dim`` of the reflected images; their width is the last axis."""
    length, width = matrix.shape[1:]
    radius = (width - length) // 2
    padding = (radius, radius, 0, 0) if dim == 3 else (0, 0, radius, radius)
    return F.pad(images, padding, mode="reflect").unfold(dim, width, length)
