"""Which of a backbone's four stages are wanted."""

from collections.abc import Sequence

from densessl.errors import UserError


def checked_stages(out_indices: Sequence[int]) -> tuple[int, ...]:
    """``out_indices`` as they are to be: 0..3 = C2..C5, each once, in order.

    Raises:
        UserError: If they are not.
    """
    stages = tuple(out_indices)
    if not stages or stages != tuple(sorted({*stages} & {0, 1, 2, 3})):
        raise UserError(
            f"model.backbone.out_indices is {stages}.",
            "use some of 0, 1, 2, 3 for C2..C5, each once and in this order",
        )
    return stages
