"""What counts as a number or a list in a config, and rules that several of its values share."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np


class Rule(NamedTuple):
    """What a value must be, in words and as a test."""

    words: str
    fits: Callable[[Any], bool]


def is_real(value: Any) -> bool:
    """Whether it is a number; True and False are not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, of Python or of numpy; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def are_dicts(value: Any) -> bool:
    """Whether it is a list or tuple of dicts, or an empty one."""
    return isinstance(value, list | tuple) and all(isinstance(item, dict) for item in value)


POSITIVE_WHOLE = Rule("a whole number above 0", lambda value: is_whole(value) and value > 0)
WHOLE = Rule("a whole number, 0 or above", lambda value: is_whole(value) and value >= 0)
POSITIVE = Rule("a number above 0", lambda value: is_real(value) and value > 0)
NOT_NEGATIVE = Rule("a number, 0 or above", lambda value: is_real(value) and value >= 0)
SHARE = Rule("a number from 0 to 1", lambda value: is_real(value) and 0 <= value <= 1)


def spaced(total: int, count: int) -> list[int]:
    """``count`` evenly spaced whole numbers from 0 to ``total`` - 1; all of them, if fewer."""
    return np.linspace(0, total - 1, min(total, count)).round().astype(int).tolist()
