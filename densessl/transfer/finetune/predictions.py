"""Sample predictions as pictures."""

import colorsys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from densessl.lettering import font
from densessl.numeric import spaced
from densessl.transfer.samples import MIN_SCORE
from densessl.transforms.decode import read_image

SAMPLES = 4
GRAY = (200, 200, 200)
MIN_WIDTH = 320


def draw_samples(model: nn.Module, dataset, out_dir: Path, truth_dir: Path) -> dict[str, list[str]]:
    """Draws what a model finds in the same few evaluation images for every run.

    Args:
        model: A trained mmdet or mmseg model.
        dataset: The evaluation set.
        out_dir: For the predictions.
        truth_dir: For the ground truth.

    Returns:
        ``predictions`` and ``ground_truth``: the files.
    """
    classes = list(dataset.metainfo["classes"])
    model.eval()
    files = {"predictions": [], "ground_truth": []}
    for index in _choose(dataset):
        item = dataset[index]
        with torch.no_grad():
            found = model.test_step(
                dict(inputs=[item["inputs"]], data_samples=[item["data_samples"]])
            )[0]
        path = Path(found.img_path)
        picture = Image.fromarray(read_image(path))  # upright, as the model saw it
        for kind, folder, draw in (
            ("predictions", out_dir, _predicted),
            ("ground_truth", truth_dir, _true),
        ):
            folder.mkdir(parents=True, exist_ok=True)
            target = folder / f"{len(files[kind])}_{path.stem}.png"  # stems may repeat
            draw(picture, found, classes).save(target)
            files[kind].append(str(target))
    return files


def _choose(dataset) -> list[int]:
    """Evenly spaced images; for detectors only such with objects."""
    indices = [i for i in range(len(dataset)) if dataset.get_data_info(i).get("instances", True)]
    return [indices[place] for place in spaced(len(indices), SAMPLES)]


def _predicted(picture: Image.Image, sample, classes: list[str]) -> Image.Image:
    if "pred_sem_seg" in sample:
        return _paint_classes(picture, sample.pred_sem_seg.data, classes)
    found = sample.pred_instances.detach().cpu()
    # A weak detector is sure of nothing: its best guess is drawn too, with its score.
    found = found[found.scores >= min(MIN_SCORE, max(found.scores.tolist(), default=0.0))]
    masks = found.masks.numpy() if "masks" in found else None
    return _paint_objects(
        picture, found.bboxes.numpy(), found.labels.tolist(), masks, classes, found.scores.tolist()
    )


def _true(picture: Image.Image, sample, classes: list[str]) -> Image.Image:
    if "gt_sem_seg" in sample:
        return _paint_classes(picture, sample.gt_sem_seg.data, classes)
    truth = sample.gt_instances.cpu()
    boxes = truth.bboxes.numpy() if isinstance(truth.bboxes, torch.Tensor) else truth.bboxes
    boxes = getattr(boxes, "tensor", boxes)
    masks = truth.masks.to_ndarray() if "masks" in truth else None
    return _paint_objects(picture, np.asarray(boxes), truth.labels.tolist(), masks, classes, None)


def colour(label: int) -> tuple[int, int, int]:
    """A colour of its own for each class: hues by the golden ratio."""
    rgb = colorsys.hsv_to_rgb((label * 0.618034) % 1, 0.75, 0.95)
    return tuple(round(255 * value) for value in rgb)


def _paint_objects(
    picture: Image.Image, boxes, labels: list[int], masks, classes: list[str], scores
) -> Image.Image:
    masks = [mask.astype(bool) for mask in masks] if masks is not None else []
    canvas, factor = _canvas(picture, zip(masks, map(colour, labels), strict=False), opacity=0.5)
    draw = ImageDraw.Draw(canvas)
    for number, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        left, top, right, bottom = (float(value) * factor for value in box)
        draw.rectangle(
            (left, top, right, bottom), outline=colour(label), width=max(2, canvas.width // 180)
        )
        text = classes[label] + (f" {scores[number]:.2f}" if scores else "")
        _caption(draw, (left, top), text, colour(label), above=True)
    return canvas


def _paint_classes(picture: Image.Image, labels: torch.Tensor, classes: list[str]) -> Image.Image:
    labels = labels.squeeze().cpu().numpy()
    shown = [i for i, name in enumerate(classes) if name != "background" and (labels == i).any()]
    canvas, _ = _canvas(picture, ((labels == i, colour(i)) for i in shown), opacity=0.55)
    draw, left, top = ImageDraw.Draw(canvas), 4, 2
    captions = [(classes[index], colour(index)) for index in shown]
    for text, fill in captions or [("background only", GRAY)]:
        width, height = _text_size(draw, text)
        if left > 4 and left + width > canvas.width:
            left, top = 4, top + height + 4
        _caption(draw, (left, top), text, fill)
        left += width + 6
    return canvas


def _canvas(picture: Image.Image, areas, opacity: float) -> tuple[Image.Image, float]:
    """``picture`` with (mask, colour) ``areas`` over it, and how much larger it has become."""
    pixels = np.asarray(picture, dtype=np.float32).copy()
    for where, fill in areas:
        pixels[where] = (1 - opacity) * pixels[where] + opacity * np.array(fill)
    factor = max(1.0, MIN_WIDTH / picture.width)
    size = [round(side * factor) for side in picture.size]
    return Image.fromarray(pixels.astype(np.uint8)).resize(size), factor


def _letters(draw: ImageDraw.ImageDraw) -> ImageFont.FreeTypeFont:
    """As large as a page of thumbnails needs."""
    return font(draw.im.size[0] / 20)


def _text_size(draw: ImageDraw.ImageDraw, text: str) -> tuple[int, int]:
    return draw.textbbox((0, 0), text, font=_letters(draw))[2:]


def _caption(draw: ImageDraw.ImageDraw, place, text: str, fill, above: bool = False) -> None:
    """Writes ``text`` on ``fill`` at or above a place, but not over the border."""
    width, height = _text_size(draw, text)
    x = max(0, min(place[0], draw.im.size[0] - width))
    y = max(0, place[1] - height if above else place[1])
    left, top, right, bottom = draw.textbbox((x, y), text, font=_letters(draw))
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=fill)
    draw.text((x, y), text, fill="black", font=_letters(draw))
