"""SimCLR (2002.05709): each view finds its twin among all views of the batch."""

import torch
from torch import Tensor

from densessl.models.methods.two_view import TwoView
from densessl.registry import MODELS


@MODELS.register_module()
class SimCLR(TwoView):
    """Contrast inside the batch; ``loss=dict(type="BatchHardTriplet")`` makes it triplet learning.

    Both views go through the network as one batch: BatchNorm sees 2N images.
    """

    own_loss = dict(type="NTXent", temperature=0.1)

    def embed(self, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) views -> their (B, C) embeddings."""
        return self.head(self.backbone(torch.cat([one, two]))[-1]).chunk(2)
