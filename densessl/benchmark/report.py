"""A measurement as a JSON file and as a table."""

from typing import Any

from densessl.environment import CORE_PACKAGES, environment

FORMAT = "densessl-benchmark/1"


def record(what: str, result: dict[str, Any], config: str | None, device: str) -> dict[str, Any]:
    """``result`` with everything that is needed to measure it again.

    Args:
        what: The sub-command.
        result: What it found.
        config: The config it was given, if it takes one.
        device: "cpu" or "cuda".
    """
    return dict(
        format=FORMAT,
        what=what,
        config=config,
        device=device,
        environment=environment(CORE_PACKAGES),
        result=result,
    )


def table(result: dict[str, Any]) -> str:
    """``result`` in lines of name and value; times with their median and quartiles."""
    lines = list(_lines(result))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def _lines(value: Any, name: str = ""):
    if isinstance(value, dict) and "median" in value:
        yield name, f"{value['median']:.4g}  ({value['q25']:.4g} .. {value['q75']:.4g})"
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _lines(item, f"{name} {key}".strip())
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, item in enumerate(value, 1):
            yield from _lines(item, f"{name} {number}")
    else:
        yield name, f"{value:.4g}" if isinstance(value, float) else str(value)
