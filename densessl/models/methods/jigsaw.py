"""Jigsaw (1603.09246): in which order are the tiles of the image?"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densessl.errors import UserError
from densessl.models.draws import draw
from densessl.models.methods.base import Method
from densessl.models.patches import distant_permutations, encode_patches
from densessl.numeric import is_whole
from densessl.precision import at_least_float32
from densessl.registry import MODELS
from densessl.structures import ViewBatch


@MODELS.register_module()
class Jigsaw(Method):
    """Solving jigsaw puzzles as classification of the order.

    The views are the tiles, row by row, as the worker cuts them (a view with ``grid``); each step
    draws an order for each image. The orders are part of the checkpoint.

    Args:
        backbone: Config or module; tiles go through it one by one.
        head: Config or module of a tile's head; a ReLU follows it.
        num_permutations: Orders to tell apart, P.
        num_patches: Tiles of an image, at most 9.
        seed: Of the choice of orders.

    Raises:
        UserError: If there are not so many orders, or too many tiles.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        num_permutations: int = 1000,
        num_patches: int = 9,
        seed: int = 0,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(backbone, data_preprocessor)
        if not is_whole(num_patches) or not 2 <= num_patches <= 9:  # all their orders are weighed
            raise UserError(f"model.num_patches is {num_patches}.", "use 2 to 9 tiles")
        orders = math.factorial(num_patches)
        if not is_whole(num_permutations) or not 2 <= num_permutations <= orders:
            raise UserError(
                f"model.num_permutations is {num_permutations!r}; {num_patches} tiles have "
                f"{orders} orders.",
                f"use a whole number from 2 to {orders}",
            )
        self.head = self.build_head(head)
        self.classifier = nn.Linear(num_patches * self.head.out_channels, num_permutations)
        permutations = distant_permutations(num_permutations, num_patches, seed)
        self.register_buffer("permutations", permutations)

    def loss(self, batch: ViewBatch) -> dict[str, Tensor]:
        count, num_patches = self.permutations.shape
        tiles = self.views_of(batch, num_patches)
        encoded = encode_patches(tiles, lambda x: self.head(self.backbone(x)[-1]).relu())

        label = draw(count, 1, self.step, batch.index)[:, 0]
        # The network is the same for all tiles, so what it gives may be put in order.
        order = self.permutations[label].unsqueeze(2)
        mixed = torch.take_along_dim(encoded, order, dim=1)  # (B, P, C)
        logits = at_least_float32(self.classifier(mixed.flatten(1)))
        accuracy = (logits.argmax(1) == label).to(logits).mean()
        return {"loss": F.cross_entropy(logits, label), "accuracy": accuracy}
