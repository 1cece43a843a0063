"""What an object's 'segmentation' in COCO's json may be."""

import math


def is_mask(value: object, width: float, height: float) -> bool:
    """Whether it is a run-length code of an image of that size, or a list of polygons."""
    if isinstance(value, dict):
        return value.get("size") == [height, width] and _is_code(value)
    return isinstance(value, list) and all(
        isinstance(polygon, list)
        and len(polygon) >= 6
        and len(polygon) % 2 == 0
        and all(map(is_number, polygon))
        for polygon in value
    )


def is_number(value: object) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def _is_code(code: dict) -> bool:
    """Whether its runs, as numbers or packed in a text, fill the image.

    pycocotools does not see to it: where they end early, its mask goes on with whatever the memory
    held.
    """
    counts = code.get("counts")
    runs = _unpacked(counts) if isinstance(counts, str) else counts
    whole = isinstance(runs, list) and all(isinstance(run, int) and run >= 0 for run in runs)
    return whole and sum(runs) == math.prod(code["size"])


def _unpacked(text: str) -> list[int] | None:
    """The runs of a packed code; None if it is none.

    A character holds 6 bits from "0" on: five of the number, the lowest first, and whether more
    follow. The last one's fifth is the sign. From the fourth number on each is the difference to
    the one before the last.
    """
    runs, number, shift = [], 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return None
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    return None if shift else runs
