"""Features of a frozen backbone: how it wants its input, what it gives, and for which files."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.device import get_device
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from densessl.conversion.architecture import describe, fixed_size
from densessl.conversion.source import (
    IMAGENET_INPUT,
    RANDOM,
    SUPERVISED,
    SourceBackbone,
    load_source,
    torchvision_file,
)
from densessl.datasets.images import too_many_broken
from densessl.errors import UserError
from densessl.evaluation.data import Sample
from densessl.files import sha256_of
from densessl.models.backbones import build_backbone
from densessl.registry import MODELS
from densessl.transforms.decode import ImageError, decode_scale, image_size, read_file, read_image
from densessl.transforms.functional import normalize
from densessl.transforms.lab import rgb_to_lab
from densessl.transforms.views import crop_and_resize

DEFAULT_SIZE = 128
CENTRE = 224 / 256  # share of the shorter side in the central crop: the field's 224 of 256
MAX_BROKEN = 0.05
C5 = (3,)


@dataclass(frozen=True)
class FrozenBackbone:
    """A backbone with what it must be fed.

    Attributes:
        module: (B, 3, H, W) -> a tuple of maps.
        input: ``mean``, ``std`` and ``channel_order`` (RGB, BGR or Lab).
        out_indices: Which stages the maps are, 0..3 = C2..C5.
        facts: What is known of it: source and its sha256, method, architecture, which, step.
        view_size: Side of the views of its pretraining, if known.
        token: Whether a timm model represents an image by what timm does, such as a ViT's class
            token. Of ours MoCo v3 trains that, the other methods the last map.
    """

    module: nn.Module
    input: dict = field(default_factory=lambda: IMAGENET_INPUT)
    out_indices: tuple[int, ...] = C5
    facts: dict = field(default_factory=dict)
    view_size: int | None = None
    token: bool = True

    @property
    def size(self) -> int:
        """The side to evaluate at by default: the only one it takes, or its pretraining's."""
        fixed = fixed_size(self.module)
        return fixed[0] if fixed else self.view_size or DEFAULT_SIZE

    @property
    def device(self) -> torch.device:
        """Where it computes, and where its features are judged."""
        return next(self.module.parameters()).device

    def prepare(self, pixels: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 RGB -> what the module takes, (B, 3, H, W) float32 on its device."""
        like = next(self.module.parameters())
        images = pixels.to(like.device).permute(0, 3, 1, 2).to(torch.float32)
        if self.input["channel_order"] == "Lab":
            images = rgb_to_lab(images / 255)
        elif self.input["channel_order"] == "BGR":
            images = images.flip(1)
        mean, std = (images.new_tensor(self.input[key]) for key in ("mean", "std"))
        return normalize(images, mean, std).to(like.dtype)

    def embed(self, pixels: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 RGB -> (B, C): the last map's mean, or what ``token`` says."""
        images = self.prepare(pixels)
        with self._size_explained():
            if self.token and hasattr(self.module, "embed"):
                return self.module.embed(images)[1]
            return self.module(images)[-1].mean((2, 3))

    def maps(self, pixels: Tensor, stages: Sequence[int] = C5) -> Tensor:
        """(B, H, W, 3) uint8 RGB -> the maps of ``stages``, concatenated at the finest's grid.

        Raises:
            UserError: The module does not give such a stage.
        """
        lacking = [stage for stage in stages if stage not in self.out_indices]
        if lacking:
            raise UserError(
                f"The backbone gives the stages {self.out_indices}, not {tuple(lacking)}.",
                "Choose stages among 0..3 for C2..C5; of a module those of its out_indices.",
            )
        with self._size_explained():
            given = self.module(self.prepare(pixels))
        maps = [given[self.out_indices.index(stage)] for stage in sorted(stages)]
        grid = maps[0].shape[2:]
        fine = [F.interpolate(m, grid, mode="bilinear", align_corners=False) for m in maps[1:]]
        return torch.cat([maps[0], *fine], dim=1)

    @contextmanager
    def _size_explained(self) -> Iterator[None]:
        """A backbone of one size says what to set in a training."""
        try:
            yield
        except UserError as error:
            if fixed_size(self.module) is None:
                raise
            raise UserError(
                error.problem,
                f"Give it images of its size: --size {self.size} or size={self.size}.",
            ) from error


def load_frozen(
    source: "str | Path | nn.Module | FrozenBackbone",
    which: str = "student",
    stages: Sequence[int] = C5,
    architecture: str | None = None,
    seed: int = 0,
    trust: bool = False,
) -> FrozenBackbone:
    """A backbone to evaluate.

    Args:
        source: A checkpoint that ``load_backbone`` reads, ``random``, ``supervised`` (torchvision's
            ResNet-50, if it has been downloaded), or a module, taken as it is.
        which: ``student`` or ``teacher``.
        stages: The stages that are needed beside C5.
        architecture: Of random weights: ``resnet18``, 34, 50 (default), 101 or a name of timm's. Of
            a checkpoint that does not say its own: timm's name.
        seed: Of random weights.
        trust: See ``load_checkpoint``.

    Raises:
        UserError: The checkpoint cannot be used.
    """
    if isinstance(source, FrozenBackbone):
        return source
    if isinstance(source, nn.Module):
        facts = dict(source=type(source).__name__)
        return FrozenBackbone(source, out_indices=getattr(source, "out_indices", C5), facts=facts)
    out_indices = tuple(sorted({*stages, *C5}))
    if source == RANDOM:
        built = _named_architecture(architecture or "resnet50")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = build_backbone(dict(built, out_indices=out_indices))
        meta, facts = dict(input=IMAGENET_INPUT), dict(source=RANDOM)
    else:
        file = torchvision_file() if source == SUPERVISED else Path(source)
        found = _source(file, which, trust, architecture)
        module, meta, built = found.build(out_indices), found.meta, found.architecture
        facts = dict(source=file.name, sha256=sha256_of(file), which=which, step=meta.get("step"))
    method = SUPERVISED if source == SUPERVISED else meta.get("method")
    facts = dict(**facts, method=method, architecture=describe(built))
    module = module.to(get_device(), memory_format=torch.channels_last)
    # Names of other projects' methods are not registered here.
    token = method == "MoCoV3" or method not in MODELS.module_dict
    return FrozenBackbone(module, meta["input"], out_indices, facts, meta.get("view_size"), token)


def _source(file: Path, which: str, trust: bool, architecture: str | None) -> SourceBackbone:
    """By what the file says or shows, else by the name given, which may be meant for another."""
    try:
        return load_source(file, which, trust)
    except UserError:
        if architecture is None:
            raise
        return load_source(file, which, trust, architecture)


def _named_architecture(name: str) -> dict:
    depth = name.removeprefix("resnet")
    if depth != name and depth.isdigit():
        return dict(type="ResNet", depth=int(depth))
    return dict(type="TimmBackbone", name=name)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards each part is in the mode that it was in."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes.items():
            part.training = training


def centre_crop(sample: Sample, size: int) -> Tensor:
    """The middle of the image, or all of the sample's box, as (size, size, 3) uint8."""
    data = read_file(sample.path)
    width, height = image_size(data)
    if sample.box is None:
        side = CENTRE * min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    else:
        box = sample.box
    image = read_image(data, decode_scale((box[2] - box[0], box[3] - box[1]), size))
    x, y = image.shape[1] / width, image.shape[0] / height
    x0, y0 = min(round(box[0] * x), image.shape[1] - 1), min(round(box[1] * y), image.shape[0] - 1)
    x0, y0 = max(x0, 0), max(y0, 0)
    x1, y1 = max(x0 + 1, round(box[2] * x)), max(y0 + 1, round(box[3] * y))
    return crop_and_resize(image, (x0, y0, x1, y1), size, "bilinear")


def whole_image(sample: Sample, size: int) -> Tensor:
    """All of the image, its longer side ``size``, padded right or below: (size, size, 3) uint8."""
    data = read_file(sample.path)
    longer = max(image_size(data))
    image = read_image(data, decode_scale([longer], size))
    height, width, _ = image.shape
    fitted = tuple(max(1, round(side * size / max(height, width))) for side in (height, width))
    pixels = crop_and_resize(image, (0, 0, width, height), fitted, "bilinear")
    padded = torch.tensor(IMAGENET_INPUT["mean"]).round().to(torch.uint8).repeat(size, size, 1)
    padded[: fitted[0], : fitted[1]] = pixels
    return padded


class _Pictures(Dataset):
    """(pixels, what is wrong with the file or "")."""

    def __init__(self, samples: list[Sample], cut: Callable[[Sample], Tensor], empty: Tensor):
        self.samples, self.cut, self.empty = samples, cut, empty

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        try:
            return self.cut(self.samples[index]), ""
        except ImageError as error:
            return self.empty, f"{self.samples[index].path}: {error.reason}"


def extract(
    compute: Callable[[Tensor], Tensor],
    samples: list[Sample],
    cut: Callable[[Sample, int], Tensor],
    size: int,
    batch_size: int = 64,
    workers: int = 0,
) -> tuple[Tensor, list[Sample], list[str]]:
    """Features of all samples, kept in memory.

    Args:
        compute: (B, size, size, 3) uint8 -> (B, ...) features.
        samples: What to look at.
        cut: ``centre_crop`` or ``whole_image``.
        size: Side in pixels.
        batch_size: Images at a time.
        workers: Processes that decode.

    Returns:
        (N, ...) float32 on the CPU, the N samples that could be read, and a line for each other.

    Raises:
        UserError: More than a twentieth cannot be read.
    """
    empty = torch.zeros(size, size, 3, dtype=torch.uint8)
    pictures = _Pictures(samples, partial(cut, size=size), empty)
    features, problems = [], []
    # A generator of its own: a training's random numbers are not to change by its evaluation.
    loader = DataLoader(
        pictures, batch_size, num_workers=workers, generator=torch.Generator().manual_seed(0)
    )
    for pixels, reasons in loader:
        readable = torch.tensor([not reason for reason in reasons])
        problems += reasons
        if readable.any():
            features.append(compute(pixels[readable]).float().cpu())
    kept = [sample for sample, reason in zip(samples, problems, strict=True) if not reason]
    broken = list(dict.fromkeys(filter(None, problems)))
    if len(samples) - len(kept) > MAX_BROKEN * len(samples):
        raise too_many_broken(
            broken, len(samples), MAX_BROKEN, "Mend them, or take them out of the data set."
        )
    return torch.cat(features), kept, broken
