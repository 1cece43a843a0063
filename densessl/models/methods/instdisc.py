"""InstDisc, also NPID (1805.01978): each image is a class of its own, remembered in a bank."""

from torch import Tensor, nn

from densessl.errors import UserError
from densessl.losses import info_nce, instance_softmax
from densessl.models.draws import draw, draw_shared
from densessl.models.health import health
from densessl.models.memory import NoiseContrast
from densessl.models.methods.banked import BankMethod
from densessl.precision import l2_normalize
from densessl.registry import MODELS
from densessl.structures import ViewBatch
from densessl.suggest import did_you_mean

# By default; "full" draws none.
NUM_NEGATIVES = dict(nce=4096, infonce=65536, full=None)


@MODELS.register_module()
class InstDisc(BankMethod):
    """Instance discrimination.

    Args:
        backbone: Config or module.
        head: Config or module of the global head.
        objective: "nce", the paper's; "infonce", a softmax against drawn entries; "full", the
            exact softmax over the bank, right below about 100,000 images.
        num_negatives: Entries drawn: by default 4096 for each image for "nce", 65,536 for the
            whole batch for "infonce". Drawn with replacement; an image may hit its own entry.
            "full" draws none.
        temperature: The divisor of every logit.
        proximal: Weight of ``|f - v|^2``, v the image's old entry; 30 is the paper's best.
        num_samples: Images of the data set; filled in from the data.
        momentum: The bank's share kept at each update.

    Raises:
        UserError: For another objective, or a number of negatives for "full".
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        num_samples: int,
        objective: str = "nce",
        num_negatives: int | None = None,
        temperature: float = 0.07,
        proximal: float = 0.0,
        momentum: float = 0.5,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(backbone, num_samples, momentum, data_preprocessor)
        if objective not in NUM_NEGATIVES:
            raise UserError(
                f"model.objective is '{objective}'{did_you_mean(objective, NUM_NEGATIVES)}.",
                f"use one of: {', '.join(NUM_NEGATIVES)}",
            )
        if objective == "full" and num_negatives is not None:
            raise UserError(
                "model.objective 'full' compares with the whole bank, so model.num_negatives, "
                f"{num_negatives}, has no place in it.",
                "leave model.num_negatives out, or use the objective infonce",
            )
        self.head = self.build_head(head)
        self.bank = self.new_bank(self.head.out_channels)
        if objective == "nce":
            self.contrast = NoiseContrast(num_samples, temperature)
        self.objective = objective
        self.num_negatives = num_negatives or NUM_NEGATIVES[objective]
        self.temperature = temperature
        self.proximal = proximal

    def loss(self, batch: ViewBatch) -> dict[str, Tensor]:
        (view,) = self.views_of(batch, 1)
        f = l2_normalize(self.head(self.backbone(view)[-1]))
        v = self.bank.features[batch.index]
        self.remember(self.bank, batch.index, f)
        loss = self.discriminate(f, v, batch.index)
        if self.proximal:
            loss = loss + self.proximal * (f - v).square().sum(1).mean()
        return {"loss": loss, **health(f, v)}

    def discriminate(self, f: Tensor, v: Tensor, index: Tensor) -> Tensor:
        """The objective for (B, C) features, their entries and places in the bank."""
        bank, count = self.bank.features, self.num_negatives
        if self.objective == "full":
            return instance_softmax(f, bank, index, self.temperature)
        if self.objective == "infonce":
            drawn = draw_shared(len(bank), count, self.step, f.device)
            return info_nce(f, v, bank[drawn], self.temperature)
        return self.contrast(f, v, bank[draw(len(bank), count, self.step, index)])
