"""PIRL (1912.01991): an image and its jigsaw both belong to the image's entry in the bank."""

from torch import Tensor, nn

from densessl.losses import pirl_nce
from densessl.models.draws import draw_shared
from densessl.models.health import health
from densessl.models.methods.banked import BankMethod
from densessl.models.patches import encode_patches
from densessl.precision import l2_normalize
from densessl.registry import MODELS
from densessl.structures import ViewBatch


@MODELS.register_module()
class PIRL(BankMethod):
    """Pretext-invariant representations, with the jigsaw as the pretext.

    The first view is the image, the others are its patches in random order: the worker cuts and
    shuffles them (a view with ``grid`` and ``shuffle``).

    Args:
        backbone: Config or module; patches go through it one by one.
        head: Config or module of the image's head.
        patch_head: Config or module of a single patch's head.
        num_patches: Patches of an image, concatenated before the last layer.
        loss_lambda: Weight of the jigsaw's loss; the image's gets the rest.
        num_negatives: Entries of the bank drawn for the whole batch. An image's own entry, where
            it is among them, does not count for that image.
        temperature: The divisor of every logit.
        num_samples: Images of the data set; filled in from the data.
        momentum: The bank's share kept at each update.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        patch_head: dict | nn.Module,
        num_samples: int,
        num_patches: int = 9,
        loss_lambda: float = 0.5,
        num_negatives: int = 32000,
        temperature: float = 0.07,
        momentum: float = 0.5,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(backbone, num_samples, momentum, data_preprocessor)
        self.head = self.build_head(head)
        self.patch_head = self.build_head(patch_head)
        dim = self.head.out_channels
        self.join = nn.Linear(num_patches * self.patch_head.out_channels, dim)
        self.bank = self.new_bank(dim)
        self.num_patches = num_patches
        self.loss_lambda = loss_lambda
        self.num_negatives = num_negatives
        self.temperature = temperature

    def loss(self, batch: ViewBatch) -> dict[str, Tensor]:
        image, *patches = self.views_of(batch, 1 + self.num_patches)
        f = l2_normalize(self.head(self.backbone(image)[-1]))
        encoded = encode_patches(patches, lambda x: self.patch_head(self.backbone(x)[-1]))
        g = l2_normalize(self.join(encoded.flatten(1)))
        v = self.bank.features[batch.index]
        self.remember(self.bank, batch.index, f)

        drawn = draw_shared(self.num_samples, self.num_negatives, self.step, f.device)
        own = drawn == batch.index[:, None]  # (B, K)
        negatives = self.bank.features[drawn]
        image_loss, jigsaw_loss = (
            pirl_nce(embedding, v, negatives, own, self.temperature) for embedding in (f, g)
        )
        return {
            "loss": self.loss_lambda * jigsaw_loss + (1 - self.loss_lambda) * image_loss,
            "image": image_loss.detach(),
            "jigsaw": jigsaw_loss.detach(),
            **health(f, g),
        }
