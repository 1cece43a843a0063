"""The weights that a training begins with, where they are not random."""

import logging
from copy import deepcopy

import torch
from torch import nn

from densessl.conversion.architecture import describe, images_for
from densessl.conversion.coverage import compare_state
from densessl.conversion.source import SourceBackbone, load_source
from densessl.errors import UserError
from densessl.models.backbones import TimmBackbone
from densessl.models.methods.base import Method


def begin_with(filename: str, method: Method, logger: logging.Logger) -> None:
    """Gives a method's backbone, and its teacher's, the weights of any checkpoint that
    ``tools/convert.py`` reads: ours, exported or another project's, its student if it has one.

    Raises:
        UserError: If the file cannot be used, or does not hold exactly this backbone.
    """
    source = _any_source(filename, method.backbone)
    whole = source.under(method.backbone)
    coverage = compare_state(method.backbone.state_dict(), whole)
    if not coverage.complete:
        gaps = [*coverage.missing, *coverage.unexpected, *coverage.mismatched]
        raise UserError(
            f"load_from={filename} holds a {describe(source.architecture)}, which does not fit "
            f"model.backbone: {len(gaps)} tensors differ, {', '.join(gaps[:3])} ...",
            "name a checkpoint of the same architecture, or set model.backbone to it",
        )
    method.backbone.load_state_dict(whole)
    if not _same_maps(method.backbone, source):
        raise UserError(
            f"load_from={filename} has tensors that fit, but is another network than "
            f"model.backbone: {source.architecture}. {' '.join(source.notes)}",
            "set model.backbone to that architecture",
        )
    if hasattr(method, "teacher"):
        method.teacher.restart(method)
    logger.info(f"backbone from {filename} ({source.layout}): {coverage.summary()}")
    if source.meta["input"] != method.data_preprocessor.input:
        logger.warning(
            f"{filename} was trained on {source.meta['input']}, and this run's views are "
            f"{method.data_preprocessor.input}"
        )


def _any_source(filename: str, backbone: nn.Module) -> SourceBackbone:
    """The student of a checkpoint, or its teacher where that is all there is; of the network that
    the file says or shows, else, as with timm's own files, of the one to begin with it."""
    names = [None, backbone.name] if isinstance(backbone, TimmBackbone) else [None]
    problem = None
    for name in names:
        for which in ("student", "teacher"):
            try:
                return load_source(filename, which, architecture=name)
            except UserError as error:
                problem = problem or error
    raise problem


@torch.no_grad()
def _same_maps(backbone: nn.Module, source: SourceBackbone) -> bool:
    """Whether ``backbone`` makes of an image what the checkpoint's network makes of it: names and
    shapes do not show strides or the number of heads."""
    theirs = source.build(getattr(backbone, "out_indices", None))
    ours = deepcopy(backbone).cpu()  # a GPU may round differently in each
    image, maps = images_for(theirs), []
    for net in (ours, theirs):
        net.eval()  # of mm's models it returns None
        maps.append(net(image))
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(*maps, strict=True))
