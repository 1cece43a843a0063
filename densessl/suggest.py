"""Near names for a misspelt one."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" for the nearest known name, or an empty string.

    Where none is near, the beginning of one is enough: ``densecl_r50`` finds its recipe.
    """
    spellings = {str(other).lower(): other for other in known}
    wanted = str(name).lower()
    near = get_close_matches(wanted, spellings, n=1, cutoff=0.6) or [
        other for other in spellings if len(wanted) > 3 and other.startswith(wanted)
    ]
    return f" (did you mean '{spellings[near[0]]}'?)" if near else ""
