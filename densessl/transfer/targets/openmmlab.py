"""What mmdet and mmseg share: their ResNets, their names, their way of loading, their chatter."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from densessl.transfer.targets.base import State, Target, numbers

NORM_CFGS = {"bn": {"type": "BN"}, "gn": {"type": "GN", "num_groups": 32}}


class OpenMMLabTarget(Target):
    """Their names are torchvision's, but what torchvision calls bn1 is gn1 if it is GroupNorm."""

    def rename(self, state: State) -> State:
        if "bn1.running_mean" in state:
            return dict(state)
        return {re.sub(r"\bbn(\d)\.", r"gn\1.", name): value for name, value in state.items()}

    def restore(self, state: State) -> State:
        return {re.sub(r"\bgn(\d)\.", r"bn\1.", name): value for name, value in state.items()}

    def forward(self, model: nn.Module, images: Tensor) -> list[Tensor]:
        return list(model(images))

    def usage(self, path: Path, architecture: dict, inputs: dict) -> str:
        mean, std, norm = numbers(inputs["mean"]), numbers(inputs["std"]), architecture["norm"]
        norm_cfg = "" if norm == "bn" else f"norm_cfg={NORM_CFGS[norm]}, "
        is_rgb, lab = inputs["channel_order"] == "RGB", ""
        if inputs["channel_order"] == "Lab":
            lab = (
                '\ncustom_imports=dict(imports=["densessl.transfer.mm.to_lab"]),\n'
                'pipelines: dict(type="densessl.ToLab") just before the images are packed'
            )
        return (
            f'backbone=dict(type="ResNet", depth={architecture["depth"]}, style="pytorch", '
            f"{norm_cfg}norm_eval=False, frozen_stages=-1,\n"
            f'              init_cfg=dict(type="Pretrained", checkpoint="{path}")),\n'
            f"data_preprocessor=dict(mean={mean}, std={std}, bgr_to_rgb={is_rgb}, ...){lab}"
        )


def build_resnet(
    resnet: type[nn.Module], architecture: dict, path: Path | None, **options
) -> nn.Module:
    """mmdet's or mmseg's ResNet, loaded by ``init_cfg`` as their configs do.

    Args:
        resnet: Their class.
        architecture: Ours, as ``as_resnet`` gives it.
        path: The exported file, or None for a fresh model.
        **options: Further arguments of the class.
    """
    init = None if path is None else {"type": "Pretrained", "checkpoint": str(path)}
    model = resnet(
        depth=architecture["depth"],
        out_indices=(0, 1, 2, 3),
        style="pytorch",
        norm_cfg=NORM_CFGS[architecture["norm"]],
        norm_eval=False,
        frozen_stages=-1,
        init_cfg=init,
        **options,
    )
    if path is not None:
        with _quiet():
            model.init_weights()
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Their loader logs a line for every parameter; the coverage table says it shorter."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
