"""What every export target can do."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from densessl.checkpoint import load_checkpoint, save_atomically
from densessl.conversion.architecture import as_resnet
from densessl.errors import UserError

State = dict[str, Tensor]
EXPORT_FORMAT = "densessl-export/1"


class Target(ABC):
    """One framework: its names for the tensors, its own model, its file.

    States are *bare*: torchvision's names for a ResNet, timm's for a timm model, no prefix.
    The file is a torch file with ``state_dict`` and ``meta`` unless a target overrides
    :meth:`write` and :meth:`read`.
    """

    name: str
    theirs: str  # what ours is compared with, for people
    suffixes: tuple[str, ...] = (".pth", ".pt")
    # Tensors of the target's own model that no backbone checkpoint holds.
    added_by_design: tuple[str, ...] = ()

    def forms(self, architecture: dict) -> dict[str, dict]:
        """The ways in which the target uses this backbone; by default as a plain ResNet.

        Args:
            architecture: Ours, as in a checkpoint's ``meta.architecture``.

        Returns:
            Name of the form -> our architecture that must give the same maps.

        Raises:
            UserError: The target has no such backbone.
        """
        return {"plain": as_resnet(architecture, self.name)}

    @abstractmethod
    def build(self, architecture: dict, path: Path | None = None) -> nn.Module:
        """The target's own model for one of its forms.

        Args:
            architecture: One of the values of :meth:`forms`.
            path: An exported file, to be loaded just as the target's users load it.
        """

    def forward(self, model: nn.Module, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) images -> the maps C2..C5 of the target's own model."""
        return list(model(images))

    @abstractmethod
    def usage(self, path: Path, architecture: dict, inputs: dict) -> str:
        """The lines a user writes to start from the file.

        Args:
            path: The exported file.
            architecture: The first of :meth:`forms`.
            inputs: ``mean``, ``std`` (of RGB in 0..255) and ``channel_order`` of the pretraining.
        """

    def rename(self, state: State) -> State:
        """Our names to the target's."""
        return dict(state)

    def restore(self, state: State) -> State:
        """The target's names to ours: the inverse of :meth:`rename`."""
        return dict(state)

    def expected(self, architecture: dict) -> Mapping[str, Tensor]:
        """The tensors of the target's own, freshly built model."""
        return self.build(architecture).state_dict()

    def loaded(self, model: nn.Module) -> Mapping[str, Tensor]:
        """The tensors of a model that :meth:`build` made, under the target's names."""
        return model.state_dict()

    def write(self, state: State, meta: dict, path: Path) -> None:
        """Writes the renamed state; never leaves half a file."""
        save_atomically({"state_dict": state, "meta": meta}, path)

    def read(self, path: Path) -> tuple[State, dict]:
        """State and meta of a file that :meth:`write` wrote."""
        exported = load_checkpoint(path)
        return exported["state_dict"], exported["meta"]


def input_note(inputs: dict) -> str:
    """What the backbone must be fed, as a line of comment."""
    mean, std = numbers(inputs["mean"]), numbers(inputs["std"])
    order = inputs["channel_order"]
    kind = "Lab of densessl.transforms.lab.rgb_to_lab" if order == "Lab" else f"{order} in 0..255"
    return f"# input: {kind}, less {mean}, over {std}"


def numbers(values: list[float]) -> str:
    """A list as a person writes it: float32 turns 123.675 into 123.67500305."""
    return str([round(value, 4) for value in values])


def missing_package(target: str, error: ImportError) -> UserError:
    """The readable message when the target's framework is not there."""
    return UserError(
        f"Exporting to {target} needs {target} itself, which cannot be imported: {error}.",
        'Install it with `pip install -e ".[transfer]" --no-build-isolation` in the checkout of '
        "densessl, or run `make demo` there once, which does.",
    )
