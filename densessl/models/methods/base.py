"""What every method has: a backbone, a loss over views, a training step over micro-batches."""

from abc import ABCMeta, abstractmethod

import torch
from mmengine.dist import get_world_size
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from densessl.errors import UserError
from densessl.models.backbones import MMBackbone, ResNet, SplitResNet, TimmBackbone
from densessl.registry import MODELS
from densessl.structures import PackedBatch, ViewBatch

LAST_STAGE = 3  # C5
OURS = (ResNet, SplitResNet, TimmBackbone, MMBackbone)


class Method(BaseModel, metaclass=ABCMeta):
    """Base of all methods.

    One iteration is one optimizer step: the batch that the loader gives holds all micro-batches
    of the step, so schedules, teacher, queue and checkpoints move by optimizer steps whatever the
    accumulation is.

    Args:
        backbone: Config or module; returns a tuple of maps, the last one is used.
        data_preprocessor: Config; by default ImageNet's mean and standard deviation.

    Raises:
        UserError: If the backbone does not give its last stage.

    Attributes:
        sync_bn: Whether BatchNorm statistics are the global batch's, in student and teacher. On
            CPUs, where PyTorch has no such BatchNorm, they stay each process's own.
        smallest_batch: Images that the global batch must have at least, or where BatchNorm sees its
            own process only, each process.
    """

    sync_bn = False
    smallest_batch = 1

    def __init__(self, backbone: dict | nn.Module, data_preprocessor: dict | None = None):
        super().__init__(data_preprocessor or dict(type="ViewPreprocessor", _scope_="densessl"))
        self.backbone = MODELS.build(backbone) if isinstance(backbone, dict) else backbone
        if not hasattr(self.backbone, "out_channels"):
            raise UserError(
                f"model.backbone, a {type(self.backbone).__name__}, has no out_channels.",
                "of mmdet's or mmseg's take MMBackbone; give one of your own a tuple, an entry for "
                "each map that it returns",
            )
        stages = getattr(self.backbone, "out_indices", ())
        if isinstance(self.backbone, OURS) and LAST_STAGE not in stages:
            raise UserError(
                f"model.backbone.out_indices is {stages}: the stages after them would stay random.",
                f"add {LAST_STAGE}, for C5",
            )
        self.step, self.total_steps = 0, 0

    def init_weights(self) -> None:
        """As mmengine's, which may give an mm backbone other weights; the teacher follows."""
        first = not self.is_init  # mmengine does nothing the second time
        super().init_weights()
        if first and hasattr(self, "teacher"):
            self.teacher.restart(self)

    def build_head(self, head: dict | nn.Module, in_channels: int | None = None) -> nn.Module:
        """Builds a head for ``in_channels``, by default the backbone's last map's."""
        if isinstance(head, dict):
            in_channels = in_channels or self.backbone.out_channels[-1]
            return MODELS.build({"in_channels": in_channels, **head})
        return head

    def maps_of_backbone(self, count: int) -> tuple[int, ...]:
        """Channels of the backbone's maps, of which the method needs ``count`` or more.

        Raises:
            UserError: If it gives fewer.
        """
        channels = self.backbone.out_channels
        if len(channels) < count:
            raise UserError(
                f"{type(self).__name__} needs {count} maps of the backbone, and "
                f"model.backbone.out_indices gives {len(channels)}.",
                "set it to (2, 3) for C4 and C5",
            )
        return channels

    @property
    def progress(self) -> float:
        """Share of the optimizer steps before the latest one; 0 while the length is unknown."""
        return min((self.step - 1) / self.total_steps, 1.0) if self.total_steps else 0.0

    @property
    def on_cpu(self) -> bool:
        """Whether it lies on a CPU, where BatchNorm knows the batch of its own process only."""
        return next(self.parameters()).device.type == "cpu"

    @classmethod
    def resolve(cls, config: dict, num_images: int) -> dict:
        """``config`` with what depends on the size of the data filled in."""
        return config

    def warnings(self, num_images: int) -> list[str]:
        """What the user should hear about this method on ``num_images`` before it starts."""
        if self.sync_bn and self.on_cpu and get_world_size() > 1:
            return [
                "BatchNorm sees the batch of its own process only: PyTorch's SyncBatchNorm "
                "needs GPUs"
            ]
        return []

    def augment(self, batch: PackedBatch) -> ViewBatch:
        """What the loader gave, as ``loss`` wants it: float views on the device."""
        return self.data_preprocessor(batch, True)["batch"]

    @abstractmethod
    def loss(self, batch: ViewBatch) -> dict[str, Tensor]:
        """``loss`` (scalar) and figures for the log. The sum of those whose names contain "loss" is
        minimised."""

    def after_optimizer_step(self) -> None:
        """Moves what moves once per optimizer step; ``self.step`` counts the steps done."""

    def views_of(self, batch: ViewBatch, count: int) -> tuple[Tensor, ...]:
        """The views of ``batch``, of which the method needs ``count``.

        Raises:
            UserError: If the config makes another number of views, or there are too few images
                to compare.
        """
        if len(batch.views) != count:
            raise UserError(
                f"{type(self).__name__} needs {count} view{'s' * (count > 1)} of each image, and "
                f"train_dataloader.dataset.transform.views makes {len(batch.views)}.",
                "list what the configs of this method list there",
            )
        ranks = 1 if self.sync_bn and self.on_cpu else get_world_size()
        images = len(batch.index) * ranks
        if images < self.smallest_batch:
            raise UserError(
                f"{type(self).__name__} compares the images of a batch with each other; this batch "
                f"has {images}.",
                f"set train_dataloader.batch_size to {self.smallest_batch} or more",
            )
        return batch.views

    def check_resume(self, state: dict[str, Tensor], same_images: bool = True) -> None:
        """Says what does not fit in a checkpoint where the shapes of its tensors alone do not.

        Args:
            state: Its ``state_dict``.
            same_images: Whether the images are those that it was trained on, in the same order.

        Raises:
            UserError: If training cannot go on from it.
        """

    def forward(self, batch: ViewBatch) -> dict[str, Tensor]:
        """See ``loss``; what a wrapper of the method calls."""
        return self.loss(batch)

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """As mmengine's: the sum of what is minimised, and the figures for the log.

        Raises:
            UserError: If ``loss`` of a method gives what is no tensor, or nothing to minimise.
        """
        strange = [name for name, value in losses.items() if not isinstance(value, Tensor)]
        if strange or not any("loss" in name for name in losses):
            raise UserError(
                f"{type(self).__name__}.loss() gives "
                + (f"what is no tensor: {strange[0]}." if strange else "nothing to minimise."),
                "return a dict of tensors, and what is to be minimised under names with 'loss'",
            )
        return super().parse_losses(losses)

    def train_step(self, data: PackedBatch, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """One optimizer step over all micro-batches of ``data``; the figures are their means."""
        return train_step(self, self, data, optim_wrapper)


def train_step(
    model: nn.Module, method: Method, data: PackedBatch, optim_wrapper: OptimWrapper
) -> dict[str, Tensor]:
    """The training step of a method, wrapped in ``model`` (DDP) or bare."""
    logs = []
    for micro_batch in data.chunk(optim_wrapper.accumulative_counts):
        with optim_wrapper.optim_context(model):
            losses = model(batch=method.augment(micro_batch))
        loss, log = method.parse_losses(losses)
        optim_wrapper.update_params(loss)
        logs.append({**log, "loss": loss})
    return {name: torch.stack([log[name].detach() for log in logs]).mean() for name in logs[0]}
