"""Figures for the log that wait on the device until somebody reads them."""

import torch
from mmengine.logging import HistoryBuffer, MessageHub
from torch import Tensor

HISTORY = 10_000
"""Values kept of each figure. mmengine keeps a million and copies them all at every step."""

MOST_PENDING = 10_000


class DeferredMessageHub(MessageHub):
    """mmengine's hub, except that tensors are kept as they are until a reader comes.

    mmengine asks the device for every figure at every step, and each question waits until the
    device has done all it was given. Here the log, at its interval, fetches the figures of all
    steps since the last time in one copy; the histories are the same.
    """

    def __init__(self, name: str, **state):
        super().__init__(name, **state)
        self._pending: list[tuple[str, Tensor, float]] = []

    def update_scalar(
        self, key: str, value: float | Tensor, count: float = 1, resumed: bool = True
    ) -> None:
        """Adds a value to the history of ``key``.

        Args:
            key: Name of the figure.
            value: A number, or a tensor of one element that nobody will write to.
            count: Weight of the value in means.
            resumed: Whether checkpoints keep the history.
        """
        self._set_resumed_keys(key, resumed)
        history = self._log_scalars.setdefault(key, HistoryBuffer(max_length=HISTORY))
        if not isinstance(value, Tensor):
            history.update(self._get_valid_value(value), count)
            return
        self._pending.append((key, value.detach(), count))
        if len(self._pending) >= MOST_PENDING:
            self.fetch()

    def fetch(self) -> None:
        """Brings all waiting figures into their histories, in one copy."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        keys, tensors, counts = zip(*pending, strict=True)
        values = torch.stack([tensor.reshape(()).double() for tensor in tensors]).tolist()
        for key, value, count in zip(keys, values, counts, strict=True):
            self._log_scalars[key].update(value, count)

    @property
    def log_scalars(self) -> dict[str, HistoryBuffer]:
        """All histories."""
        self.fetch()
        return super().log_scalars

    def get_scalar(self, key: str) -> HistoryBuffer:
        """The history of ``key``; waits for the device only if that figure does."""
        waits = any(name == key for name, *_ in self._pending)
        return self.log_scalars[key] if waits else self._log_scalars[key]

    def state_dict(self) -> dict:
        """See mmengine."""
        self.fetch()
        return super().state_dict()
