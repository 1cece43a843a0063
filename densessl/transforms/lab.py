"""CIE L*a*b*, in which CMC takes luminance and colour for two views of an image."""

import torch
from torch import Tensor

# Linear sRGB to XYZ (IEC 61966-2-1), rows divided by the white point D65.
_TO_XYZ = (
    (0.4124564 / 0.950470, 0.3575761 / 0.950470, 0.1804375 / 0.950470),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339 / 1.088830, 0.1191920 / 1.088830, 0.9503041 / 1.088830),
)
_EDGE = 6 / 29


def rgb_to_lab(images: Tensor) -> Tensor:
    """sRGB (B, 3, H, W) in [0, 1] to L in [0, 100], a and b about [-110, 110], D65.

    Source: CIE 1976.
    """
    linear = torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055) ** 2.4)
    # Not a product of matrices: autocast would make it bf16, and the device would wait for one.
    r, g, b = linear.unbind(1)
    xyz = torch.stack([r * of_r + g * of_g + b * of_b for of_r, of_g, of_b in _TO_XYZ], dim=1)
    root = xyz.clamp(min=_EDGE**3) ** (1 / 3)
    f = torch.where(xyz > _EDGE**3, root, xyz / (3 * _EDGE**2) + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)
