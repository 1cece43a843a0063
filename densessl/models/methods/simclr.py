"""SimCLR (2002.05709): each view finds its twin among all views of the batch."""

from collections.abc import Callable

import torch
from torch import Tensor

from densessl.errors import UserError
from densessl.models.methods.two_view import TwoView
from densessl.registry import MODELS


@MODELS.register_module()
class SimCLR(TwoView):
    """Contrast inside the batch; ``loss=dict(type="BatchHardTriplet")`` makes it triplet learning.

    Both views go through the network as one batch: BatchNorm sees 2N images.
    """

    own_loss = dict(type="NTXent", temperature=0.1)

    def each(
        self, part: Callable[[Tensor], Tensor], one: Tensor, two: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As ``TwoView.each``, but in one batch.

        Raises:
            UserError: If the views are not of one size.
        """
        if one.shape != two.shape:
            sizes = " and ".join(str(view.shape[-1]) for view in (one, two))
            raise UserError(
                f"SimCLR puts both views into one batch, and they have {sizes} pixels.",
                "make them of one size in train_dataloader.dataset.transform",
            )
        return part(torch.cat([one, two])).chunk(2)
