"""CMC (1906.05849): the luminance of an image against its colour, through two networks."""

from torch import Tensor, nn

from densessl.errors import UserError
from densessl.models.backbones.split import SplitBackbone
from densessl.models.draws import draw
from densessl.models.health import health
from densessl.models.memory import NoiseContrast
from densessl.models.methods.banked import BankMethod
from densessl.precision import l2_normalize
from densessl.registry import MODELS
from densessl.structures import ViewBatch


@MODELS.register_module()
class CMC(BankMethod):
    """Contrastive multiview coding of L and ab.

    The exported backbone is both networks; its input is Lab, as the checkpoint's meta says.

    Args:
        backbone: Config or module of a ``SplitBackbone`` with two parts, of 1 and 2 channels.
        head: Config of the global head; each network has one of its own.
        num_negatives: Entries drawn for each image, the same of both banks.
        temperature: The divisor of every logit.
        num_samples: Images of the data set; filled in from the data.
        momentum: The banks' share kept at each update.
        data_preprocessor: Config; by default ``LabPreprocessor``.

    Raises:
        UserError: For any other backbone.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict,
        num_samples: int,
        num_negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        data_preprocessor: dict | None = None,
    ):
        lab = dict(type="LabPreprocessor", _scope_="densessl")
        super().__init__(backbone, num_samples, momentum, data_preprocessor or lab)
        channels = getattr(self.backbone, "channels", None)
        if not isinstance(self.backbone, SplitBackbone) or channels != (1, 2):
            raise UserError(
                "CMC needs two networks, one for L and one for ab, and model.backbone is "
                + (f"for channels {channels}." if channels else f"{type(self.backbone).__name__}."),
                "use model.backbone=dict(type='SplitResNet', depth=..., width=0.5)",
            )
        of_l, of_ab = (part.out_channels[-1] for part in self.backbone.parts)
        self.head_l, self.head_ab = self.build_head(head, of_l), self.build_head(head, of_ab)
        self.bank_l, self.bank_ab = (
            self.new_bank(part.out_channels) for part in (self.head_l, self.head_ab)
        )
        self.contrast_l, self.contrast_ab = (
            NoiseContrast(num_samples, temperature) for _ in range(2)
        )
        self.num_negatives = num_negatives

    def loss(self, batch: ViewBatch) -> dict[str, Tensor]:
        (view,), index = self.views_of(batch, 1), batch.index
        map_l, map_ab = (maps[-1] for maps in self.backbone.separate(view))
        f_l, f_ab = l2_normalize(self.head_l(map_l)), l2_normalize(self.head_ab(map_ab))
        bank_l, bank_ab = self.bank_l.features, self.bank_ab.features
        self.remember(self.bank_l, index, f_l)
        self.remember(self.bank_ab, index, f_ab)

        drawn = draw(self.num_samples, self.num_negatives, self.step, index)
        loss_l = self.contrast_l(f_l, bank_ab[index], bank_ab[drawn])
        loss_ab = self.contrast_ab(f_ab, bank_l[index], bank_l[drawn])
        return {
            "loss": loss_l + loss_ab,
            "l": loss_l.detach(),
            "ab": loss_ab.detach(),
            **health(f_l, f_ab),
        }
