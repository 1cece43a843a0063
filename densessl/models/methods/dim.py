"""Deep InfoMax (1808.06670): an image's code tells its own locations from those of others."""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from densessl.correspondence.feature import pool_to_grid
from densessl.errors import UserError
from densessl.losses import donsker_varadhan, jsd, location_nce, location_scores
from densessl.models.distributed import gather_with_grad
from densessl.models.draws import draw
from densessl.models.health import health
from densessl.models.methods.base import Method
from densessl.precision import at_least_float32
from densessl.registry import MODELS
from densessl.structures import ViewBatch
from densessl.suggest import did_you_mean

ESTIMATORS = dict(jsd=jsd, infonce=location_nce, dv=donsker_varadhan)
DISCRIMINATOR = dict(type="GlobalHead", hidden_channels=(1000, 200), out_channels=1)
UNIFORM_STEPS = 2**24  # what float32 tells apart in [0, 1)


@MODELS.register_module()
class DIM(Method):
    """Deep InfoMax: local, global, and a prior on the code.

    The backbone gives two maps or more: the first has the locations, the last makes the code.
    Accumulation does not enlarge the batch: each micro-batch has its own negatives only.

    Args:
        backbone: Config or module; its ``out_indices`` choose the map of the locations.
        head: Config or module of what makes the code.
        embedding: Config of the head that each side has, for code and for locations.
        estimator: "jsd", "infonce" or "dv".
        global_weight: Of the code against the whole map, flattened.
        local_weight: Of the code against each location.
        prior_weight: Of the codes, squashed to 0..1, being like uniform numbers.
        grid: Side M that the map of the locations is pooled to; None keeps its own.
        discriminator: Config of what tells codes from uniform numbers.

    Raises:
        UserError: For an estimator that there is not, a backbone that gives one map, no positive
            weight of local or global, or a global one without ``grid``.
    """

    sync_bn = True
    smallest_batch = 2

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        embedding: dict,
        estimator: str = "jsd",
        global_weight: float = 0.0,
        local_weight: float = 1.0,
        prior_weight: float = 0.1,
        grid: int | None = None,
        discriminator: dict | nn.Module = DISCRIMINATOR,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(backbone, data_preprocessor)
        if estimator not in ESTIMATORS:
            raise UserError(
                f"model.estimator is '{estimator}'{did_you_mean(estimator, ESTIMATORS)}.",
                f"use one of: {', '.join(ESTIMATORS)}",
            )
        channels = self.maps_of_backbone(2)
        self.head = self.build_head(head)
        # Of each pair the first embeds the code, the second what it is set against.
        against = {}
        if local_weight:
            against["local"] = channels[0]
        if global_weight:
            if grid is None:
                raise UserError(
                    "The global part of Deep InfoMax takes the whole map, and needs its size.",
                    "set model.grid, e.g. to 7, or model.global_weight to 0",
                )
            against["global"] = channels[0] * grid**2
        if not against:
            raise UserError(
                "model.local_weight and model.global_weight are both 0: nothing is left to learn.",
                "set one of them, e.g. local_weight to 1",
            )
        self.embed = nn.ModuleDict(
            {
                name: nn.ModuleList(
                    self.build_head(embedding, width) for width in (self.head.out_channels, other)
                )
                for name, other in against.items()
            }
        )
        if prior_weight:
            self.discriminator = self.build_head(discriminator, self.head.out_channels)
        self.weights = {"global": global_weight, "local": local_weight, "prior": prior_weight}
        self.estimate = ESTIMATORS[estimator]
        self.grid = grid

    def loss(self, batch: ViewBatch) -> dict[str, Tensor]:
        (view,) = self.views_of(batch, 1)
        maps = self.backbone(view)
        code, cells = self.head(maps[-1]), pool_to_grid(maps[0], self.grid)

        terms, figures = {}, {}
        for name, (of_code, of_cells) in self.embed.items():
            g = of_code(code)
            whole = cells if name == "local" else cells.flatten(1)[:, :, None, None]
            locations = of_cells(whole).flatten(2)  # (B, C, L)
            everyone = gather_with_grad(g), gather_with_grad(locations)
            terms[name] = self.estimate(*location_scores(*everyone))
            figures.update(health(g, locations.mean(2)))
        apart = 0.0
        if self.weights["prior"]:
            terms["prior"], apart = self.match_prior(code, batch.index)
            figures["discriminator"] = apart.detach()
        loss = sum(self.weights[name] * term for name, term in terms.items()) + apart
        figures.update({name: term.detach() for name, term in terms.items()})
        return {"loss": loss, **figures}

    def match_prior(self, code: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's loss and the discriminator's; neither reaches what the other trains.

        Args:
            code: (B, C).
            index: (B,) of the images, which the uniform numbers depend on.
        """
        code = at_least_float32(code).sigmoid()
        uniform = draw(UNIFORM_STEPS, code.shape[1], self.step, index).to(code) / UNIFORM_STEPS
        apart = jsd(self.discriminator(uniform), self.discriminator(code.detach()))
        fixed = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        judged = functional_call(self.discriminator, fixed, code)
        return F.softplus(-at_least_float32(judged)).mean(), apart
