"""A list of names in two arrays."""

import os
from collections.abc import Iterable, Sequence

import numpy as np


class Names(Sequence):
    """File names, read as from a list.

    Looking at a string of Python's writes to it (a count of references): each worker that was
    forked would end with a copy of a list of them, 118 MB for ImageNet's.
    """

    def __init__(self, names: Iterable[str]):
        encoded = [os.fsencode(name) for name in names]
        self._ends = np.cumsum([0, *map(len, encoded)])
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int | slice) -> "str | list[str]":
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        index = range(len(self))[index]
        start, end = self._ends[index : index + 2]
        return os.fsdecode(self._bytes[start:end].tobytes())
