"""The report's sample predictions: a row for each image; ground truth and inits as columns."""

import base64
import io
from pathlib import Path

from PIL import Image, ImageDraw

from densessl.lettering import font, short

MIN_SCORE = 0.3
_DRAWN = (
    f"Objects found with a score of {MIN_SCORE:g} or more are drawn; where there is none, the best "
    "guess."
)
_CELL, _GAP, _HEAD = 240, 8, 28


def collect(result: dict, root: Path) -> dict | None:
    """Gathers the pictures that the runs drew.

    Args:
        result: A ``results.json`` as a dict.
        root: Folder that its paths are relative to.

    Returns:
        ``caption`` (what is drawn, may be empty), ``columns`` (names) and ``rows`` of cells with
        ``image``, ``uri`` and ``alt``; a picture that cannot be read has None for the first two.
        None if no run drew anything.
    """
    drawn = {"ground truth": result.get("ground_truth") or []}
    for init in result["inits"]:
        of_init = [r for r in result["runs"] if r["init"] == init["name"] and r.get("predictions")]
        drawn[init["name"]] = of_init[0]["predictions"] if of_init else []
    columns = {name: {Path(p).stem: p for p in paths} for name, paths in drawn.items() if paths}
    if not columns:
        return None
    images = dict.fromkeys(stem for paths in columns.values() for stem in paths)
    rows = [
        [_cell(root, paths.get(stem), f"{stem}: {name}") for name, paths in columns.items()]
        for stem in images
    ]
    caption = "" if result["task"] == "segmentation" else _DRAWN
    return {"caption": caption, "columns": list(columns), "rows": rows}


def _cell(root: Path, path: str | None, alt: str) -> dict:
    try:
        with Image.open(root / path) as picture:
            image = picture.convert("RGB")
    except (OSError, TypeError):  # TypeError: this initialisation drew no such picture
        return {"image": None, "uri": None, "alt": alt}
    image.thumbnail((2 * _CELL, 2 * _CELL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"image": image, "uri": uri, "alt": alt}


def contact_sheet(grid: dict) -> Image.Image:
    """The grid of ``collect`` as one picture, each cell 240 pixels wide."""
    letters = font(14)
    rows = []
    for cells in grid["rows"]:
        pictures = [c["image"] for c in cells]
        rows.append([p and p.resize((_CELL, round(p.height * _CELL / p.width))) for p in pictures])
    heights = [max([p.height for p in row if p], default=0) for row in rows]
    width = len(grid["columns"]) * (_CELL + _GAP) + _GAP
    sheet = Image.new("RGB", (width, _HEAD + sum(h + _GAP for h in heights)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, name in enumerate(grid["columns"]):
        draw.text((_GAP + i * (_CELL + _GAP), 6), short(name, 28), fill="#1b1f24", font=letters)
    top = _HEAD
    for row, height in zip(rows, heights, strict=True):
        for i, picture in enumerate(row):
            if picture:
                sheet.paste(picture, (_GAP + i * (_CELL + _GAP), top))
        top += height + _GAP
    return sheet
