"""From the samples of a batch to one ``ViewBatch``, on the worker."""

from collections.abc import Sequence

import torch
from mmengine.registry import FUNCTIONS
from torch.utils.data import default_collate

from densessl.structures import ViewBatch, ViewRecord

_TYPES = ViewRecord(
    box=torch.float32,
    flip=torch.bool,
    source_size=torch.float32,
    jitter=torch.float32,
    jitter_order=torch.int64,
    gray=torch.bool,
    blur_sigma=torch.float32,
    solarize=torch.float32,
)


@FUNCTIONS.register_module()
def collate_views(samples: Sequence[ViewBatch]) -> ViewBatch:
    """Stacks the views, and makes tensors of what the samples hold as plain numbers.

    A tensor for each number of each sample would cost a worker a tenth of its time.
    """
    views, records, index, broken = zip(*samples, strict=True)
    return ViewBatch(
        tuple(map(default_collate, zip(*views, strict=True))),  # in memory that processes share
        tuple(map(_stack, zip(*records, strict=True))),
        torch.tensor(index),
        torch.tensor(broken),
    )


def _stack(records: Sequence[ViewRecord]) -> ViewRecord:
    fields = zip(zip(*records, strict=True), _TYPES, strict=True)
    return ViewRecord(*(torch.tensor(values, dtype=dtype) for values, dtype in fields))
