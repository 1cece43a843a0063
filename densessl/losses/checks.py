"""What losses refuse, because the number that would come out means nothing."""

from torch import Tensor


def check_pair(one: Tensor, other: Tensor, rows: int = 1) -> None:
    """Raises ``ValueError`` unless both are (N, C) with N of ``rows`` or more."""
    if one.dim() != 2 or one.shape != other.shape or len(one) < rows:
        raise ValueError(
            f"two tensors (N, C) with N of {rows} or more are needed, not "
            f"{tuple(one.shape)} and {tuple(other.shape)}"
        )


def check_temperature(temperature: float | Tensor) -> None:
    """Raises ``ValueError`` unless it is above 0; a learned one is not looked at."""
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f"temperature is {temperature}: it must be above 0")
