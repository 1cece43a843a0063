"""Lab images in mmdet's and mmseg's pipelines, for backbones that were pretrained on them."""

import torch
from mmcv.transforms import BaseTransform

from densessl.registry import TRANSFORMS
from densessl.threads import one_thread
from densessl.transforms.lab import rgb_to_lab


@TRANSFORMS.register_module()
class ToLab(BaseTransform):
    """BGR uint8 to float32 L, a, b: the last step before the image is packed."""

    def transform(self, results: dict) -> dict:
        """Replaces ``img``, (H, W, 3)."""
        rgb = torch.from_numpy(results["img"][..., ::-1].copy()).permute(2, 0, 1)[None] / 255
        with one_thread():
            lab = rgb_to_lab(rgb)
        results["img"] = lab[0].permute(1, 2, 0).contiguous().numpy()
        return results
