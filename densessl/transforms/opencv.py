"""``functional.augment_view`` for a CPU: image by image, and only what was drawn for each.

OpenCV keeps the channels of a pixel together, as the views come and as the network wants them.
"""

import math

import cv2
import numpy as np
import torch
from torch import Tensor

from densessl.threads import one_thread
from densessl.transforms.functional import (
    BRIGHTNESS,
    CONTRAST,
    GRAY,
    HUE,
    SATURATION,
    check_kernel_size,
)

_SAME = np.eye(3)
_TO_GRAY = np.tile(GRAY, (3, 1))


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
    """As ``functional.augment_view``, to a hundred-thousandth of the range, on one thread.

    But a value that is so near to the threshold of ``solarize`` may fall on its other side.
    """
    check_kernel_size(kernel_size, images.shape[-2:])
    result = torch.empty(images.shape, memory_format=torch.channels_last)
    mean, std = mean.double().numpy() / 255, std.double().numpy() / 255
    drawn = (flip, factors, order, gray, sigma, solarize_threshold)
    values = zip(*(parameter.tolist() for parameter in drawn), strict=True)
    # The same two pieces of memory for all images: new ones cost more than the work in them.
    x, spare = np.empty((2, *images.shape[2:], 3), np.float32)
    # Never in a data worker: OpenCV waits for ever there if the parent has used its threads.
    with one_thread(), one_thread(cv2.getNumThreads, cv2.setNumThreads):
        for source, target, (mirror, strengths, turns, bare, blur, threshold) in zip(
            _rows(images), _rows(result), values, strict=True
        ):
            source = cv2.flip(source, 1) if mirror else source
            np.multiply(source, np.float32(1 / 255), out=x)
            for operation in turns:
                strength = strengths[operation]
                if operation == HUE and strength:
                    _turn_hue(x, spare, strength)
                elif operation != HUE and strength != 1:
                    x, spare = _affine(x, spare, *_BLENDS[operation](x, strength)), x
                    if strength > 1:  # otherwise it lies between two that are in [0, 1]
                        torch.from_numpy(x).clamp_(0, 1)  # NumPy and OpenCV take twice as long
            if bare:
                x, spare = _affine(x, spare, _TO_GRAY), x
            if blur > 0 and kernel_size > 1:
                x, spare = _blur(x, spare, blur, kernel_size), x
            if threshold <= 1:
                np.abs(np.subtract(x >= threshold, x, out=x), out=x)
            _affine(x, target, np.diag(1 / std), -mean / std)
    return result


def _rows(images: Tensor) -> np.ndarray:
    """(B, 3, H, W) as (B, H, W, 3), the same memory."""
    return images.permute(0, 2, 3, 1).numpy()


def _affine(x: np.ndarray, out: np.ndarray, matrix: np.ndarray, offset=0.0) -> np.ndarray:
    """``matrix`` (3, 3) times the colour of each pixel, plus ``offset``, a number or three."""
    both = np.empty((3, 4), np.float32)
    both[:, :3], both[:, 3] = matrix, offset
    return cv2.transform(x, both, dst=out)


def _brightness(x: np.ndarray, factor: float) -> tuple:
    return (factor * _SAME,)


def _contrast(x: np.ndarray, factor: float) -> tuple:
    return factor * _SAME, (1 - factor) * np.dot(cv2.mean(x)[:3], GRAY)


def _saturation(x: np.ndarray, factor: float) -> tuple:
    return (factor * _SAME + (1 - factor) * _TO_GRAY,)


_BLENDS = {BRIGHTNESS: _brightness, CONTRAST: _contrast, SATURATION: _saturation}
"""What ``_affine`` takes for each of them."""


def _turn_hue(x: np.ndarray, spare: np.ndarray, shift: float) -> None:
    hsv = cv2.cvtColor(x, cv2.COLOR_RGB2HSV, dst=spare)
    hsv[..., 0] += np.float32(360 * (shift % 1))  # above 360 is one turn more
    cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=x)


def _blur(x: np.ndarray, out: np.ndarray, sigma: float, kernel_size: int) -> np.ndarray:
    # Further than this a tap weighs less than a millionth.
    reach = min(kernel_size // 2, math.ceil(5.3 * sigma))
    taps = cv2.getGaussianKernel(2 * reach + 1, sigma, cv2.CV_32F)
    return cv2.sepFilter2D(x, -1, taps, taps, out, borderType=cv2.BORDER_REFLECT_101)
