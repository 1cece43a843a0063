"""A metric over seeds: its mean and its deviation."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Score:
    """The finite values of a metric over seeds.

    Attributes:
        values: One value a seed, in percent.
    """

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Arithmetic mean; NaN without a value."""
        return float(np.mean(self.values)) if self.values else math.nan

    @property
    def std(self) -> float:
        """Sample standard deviation (divided by n - 1); NaN for fewer than two values."""
        return float(np.std(self.values, ddof=1)) if self.n > 1 else math.nan

    def __str__(self) -> str:
        if not self.n:
            return "–"
        return f"{self.mean:.1f} ± {self.std:.1f}" if self.n > 1 else f"{self.mean:.1f}"
