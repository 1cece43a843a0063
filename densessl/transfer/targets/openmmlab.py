"""What mmdet and mmseg share: their ResNets, their way of loading, their chatter."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from densessl.transfer.targets.base import numbers


def build_resnet(resnet: type[nn.Module], depth: int, path: Path | None, **options) -> nn.Module:
    """mmdet's or mmseg's ResNet, loaded by ``init_cfg`` as their configs do.

    Args:
        resnet: Their class.
        depth: 18, 34, 50 or 101.
        path: The exported file, or None for a fresh model.
        **options: Further arguments of the class.
    """
    init = None if path is None else {"type": "Pretrained", "checkpoint": str(path)}
    model = resnet(
        depth=depth,
        out_indices=(0, 1, 2, 3),
        style="pytorch",
        norm_eval=False,
        frozen_stages=-1,
        init_cfg=init,
        **options,
    )
    if path is not None:
        with _quiet():
            model.init_weights()
    return model


def backbone_usage(path: Path, architecture: dict, inputs: dict) -> str:
    """The entries of an mmdet or mmseg config: backbone, and input as in the pretraining."""
    mean, std = numbers(inputs["mean"]), numbers(inputs["std"])
    return (
        f'backbone=dict(type="ResNet", depth={architecture["depth"]}, style="pytorch", '
        "norm_eval=False, frozen_stages=-1,\n"
        f'              init_cfg=dict(type="Pretrained", checkpoint="{path}")),\n'
        f"data_preprocessor=dict(mean={mean}, std={std}, bgr_to_rgb=True, ...)"
    )


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
