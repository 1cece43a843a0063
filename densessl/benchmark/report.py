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
    """``result`` in lines of name and value; times with their median and quartiles.

    A list of dicts is a table below them, with a line for each dict and a column for each name.
    """
    grids = {name: value for name, value in result.items() if _is_grid(value)}
    lines = list(_lines({name: value for name, value in result.items() if name not in grids}))
    blocks = [list(map(list, lines))] if lines else []
    for items in grids.values():
        rows = [dict(_lines(item)) for item in items]
        names = list(dict.fromkeys(name for row in rows for name in row))
        blocks.append([names, *([row.get(name, "-") for name in names] for row in rows)])
    return "\n\n".join(map(_aligned, blocks))


def _is_grid(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[f"{x:<{w}}" for x, w in zip(row, widths, strict=True)] for row in rows]
    return "\n".join("  ".join(row).rstrip() for row in padded)


def _lines(value: Any, name: str = ""):
    if isinstance(value, dict) and "median" in value:
        yield name, f"{value['median']:.4g}  ({value['q25']:.4g} .. {value['q75']:.4g})"
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _lines(item, f"{name} {key}".strip())
    else:
        yield name, f"{value:.4g}" if isinstance(value, float) else str(value)
