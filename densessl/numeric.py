"""What counts as a number in a config."""

from numbers import Integral, Real
from typing import Any


def is_real(value: Any) -> bool:
    """Whether it is a number; True and False are not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, of Python or of numpy; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)
