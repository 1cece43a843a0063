"""A fixed part of a labelled training set."""

import numpy as np
from mmengine.registry import DATASETS as MM_DATASETS
from torch.utils.data import Dataset

from densessl.registry import DATASETS


def subset_indices(count: int, fraction: float, seed: int) -> list[int]:
    """Which of ``count`` images are in the subset.

    The images are shuffled once by ``seed`` and the first ones taken, so a smaller fraction of the
    same seed is a part of a larger one. This is how the published few-label splits of COCO are
    made: a share of the images of the training list, one fold a seed.

    Args:
        count: Images in the whole set.
        fraction: In (0, 1].
        seed: Of the fold.

    Returns:
        Sorted indices, at least one.
    """
    chosen = max(1, round(count * fraction))
    return sorted(np.random.default_rng(seed).permutation(count)[:chosen].tolist())


@DATASETS.register_module()
class LabelSubset(Dataset):
    """Wraps any mm data set and keeps a fraction of its images, see :func:`subset_indices`.

    Args:
        dataset: The data set, or its config in the scope of the default registry.
        fraction: In (0, 1].
        seed: Of the fold.
    """

    def __init__(self, dataset: dict | Dataset, fraction: float = 1.0, seed: int = 0):
        # mmengine's: the set is mmdet's or mmseg's, whichever project trains.
        self.dataset = MM_DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.fraction, self.seed = fraction, seed
        self.full_init()

    def full_init(self) -> None:
        """Loads the annotations, as mmengine asks of its data sets."""
        self.dataset.full_init()
        self.indices = subset_indices(len(self.dataset), self.fraction, self.seed)

    @property
    def metainfo(self) -> dict:
        """The wrapped set's: classes, palette."""
        return self.dataset.metainfo

    def get_data_info(self, index: int) -> dict:
        """Annotations of one image, for mmdet's batch sampler."""
        return self.dataset.get_data_info(self.indices[index])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int):
        return self.dataset[self.indices[index]]
