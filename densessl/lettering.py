"""Text in pictures, whatever the user calls things."""

from matplotlib.font_manager import findfont
from PIL import ImageFont


def plain(text: str) -> str:
    """A label that matplotlib shows as it is: no formula, no entry hidden from the legend."""
    text = text.replace("$", r"\$")
    return " " + text if text.startswith("_") else text


def short(text: str, limit: int = 24) -> str:
    """Both ends of a long text: names of one family often differ in the last letters only."""
    half = limit // 2
    return text if len(text) <= limit else f"{text[: half - 1]}…{text[-half:]}"


def font(size: float) -> ImageFont.FreeTypeFont:
    """For Pillow: matplotlib's own, which has the letters of most alphabets."""
    return ImageFont.truetype(findfont("DejaVu Sans"), size)
