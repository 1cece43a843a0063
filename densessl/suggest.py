"""Near names for a misspelt one."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" for the nearest known name, or an empty string."""
    spellings = {str(other).lower(): other for other in known}
    near = get_close_matches(str(name).lower(), spellings, n=1, cutoff=0.6)
    return f" (did you mean '{spellings[near[0]]}'?)" if near else ""
