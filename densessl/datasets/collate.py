"""From the samples of a batch to one ``PackedBatch``, on the worker."""

from collections.abc import Iterator, Sequence

import torch
from mmengine.registry import FUNCTIONS
from torch.utils.data import default_collate

from densessl.structures import RECORD_FIELDS, PackedBatch, ViewBatch, ViewRecord


@FUNCTIONS.register_module()
def collate_views(samples: Sequence[ViewBatch]) -> PackedBatch:
    """Stacks the views, and makes tensors of what the samples hold as plain numbers.

    A tensor for each number of each sample would cost a worker a tenth of its time.
    """
    sizes: dict[tuple[int, ...], list[int]] = {}
    for place, view in enumerate(samples[0].views):
        sizes.setdefault(tuple(view.shape), []).append(place)
    views = []
    for size, places in sizes.items():
        # In memory that processes share, where a worker does it.
        stack = default_collate([sample.views[place] for sample in samples for place in places])
        views.append(stack.view(len(samples), len(places), *size))
    return PackedBatch(
        views=tuple(views),
        places=tuple(map(tuple, sizes.values())),
        numbers=torch.tensor(
            [[[*_flat(record)] for record in sample.records] for sample in samples],
            dtype=torch.float32,
        ),
        keys=torch.tensor([(sample.index, sample.broken) for sample in samples]),
    )


def _flat(record: ViewRecord) -> Iterator[float]:
    for value, (width, _) in zip(record, RECORD_FIELDS, strict=True):
        if width is None:
            yield value
        else:
            yield from value
