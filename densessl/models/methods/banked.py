"""What the methods with memory banks share."""

from collections.abc import Callable

from torch import Tensor, nn

from densessl.errors import UserError
from densessl.models.distributed import start_gather
from densessl.models.memory import MemoryBank
from densessl.models.methods.base import Method


class BankMethod(Method):
    """Base of the methods with banks, which have an entry for each image of the data set.

    Banks are read during a step and updated after it, with what all ranks have seen. The same
    negatives are drawn for an image whatever the ranks and micro-batches are.

    Args:
        backbone: Config or module.
        num_samples: Images of the data set; filled in from the data.
        momentum: The banks' share kept at each update.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        num_samples: int,
        momentum: float,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(backbone, data_preprocessor)
        self.num_samples = num_samples
        self.momentum = momentum
        self._seen: list[tuple[MemoryBank, Callable[[], Tensor], Callable[[], Tensor]]] = []

    @classmethod
    def resolve(cls, config: dict, num_images: int) -> dict:
        if config.get("num_samples") not in (None, num_images):
            raise UserError(
                f"model.num_samples is {config['num_samples']}, and the data set has {num_images} "
                "images: a memory bank has one entry for each.",
                "leave model.num_samples out",
            )
        return {**config, "num_samples": num_images}

    def check_resume(self, state: dict[str, Tensor], same_images: bool = True) -> None:
        for name, bank in self.named_modules():
            there = state.get(f"{name}.features")
            if not isinstance(bank, MemoryBank) or there is None:
                continue
            if len(there) != len(bank.features):
                what = (
                    f"has an entry for each of {len(there)} images, and train_dataloader.dataset "
                    f"now has {len(bank.features)}"
                )
            elif not same_images:
                what = "has its entries in the order of other images"
            else:
                continue
            raise UserError(
                f"The data set has changed: the checkpoint's memory bank '{name}' {what}.",
                "resume with the images it was trained on, or start a new run in another "
                "--work-dir",
            )

    def new_bank(self, dim: int) -> MemoryBank:
        """A bank of ``dim`` channels for all images."""
        return MemoryBank(self.num_samples, dim, self.momentum)

    def remember(self, bank: MemoryBank, index: Tensor, features: Tensor) -> None:
        """Updates entries ``index`` (N,) of ``bank`` with (N, dim) features, after the step; does
        nothing in eval mode."""
        if self.training:
            self._seen.append((bank, start_gather(index), start_gather(features)))

    def after_optimizer_step(self) -> None:
        for bank, index, features in self._seen:
            bank.update(index(), features())
        self._seen.clear()
