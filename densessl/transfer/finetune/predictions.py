"""Sample predictions as pictures."""

import colorsys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from densessl.numeric import spaced
from densessl.transforms.decode import read_image

SAMPLES = 4
GRAY = (200, 200, 200)
MIN_SCORE = 0.3
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
    canvas = np.asarray(picture, dtype=np.float32).copy()
    for label, mask in zip(labels, masks if masks is not None else (), strict=False):
        where = mask.astype(bool)
        canvas[where] = 0.5 * canvas[where] + 0.5 * np.array(colour(label))
    canvas = Image.fromarray(canvas.astype(np.uint8))
    factor = max(1.0, MIN_WIDTH / canvas.width)
    canvas = canvas.resize((round(canvas.width * factor), round(canvas.height * factor)))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for number, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        left, top, right, bottom = (float(value) * factor for value in box)
        draw.rectangle((left, top, right, bottom), outline=colour(label), width=2)
        text = classes[label] + (f" {scores[number]:.2f}" if scores else "")
        place = (left + 2, max(0, top - 15))
        draw.rectangle(draw.textbbox(place, text, font=font), fill=colour(label))
        draw.text(place, text, fill="black", font=font)
    return canvas


def _paint_classes(picture: Image.Image, labels: torch.Tensor, classes: list[str]) -> Image.Image:
    canvas = np.asarray(picture, dtype=np.float32).copy()
    labels = labels.squeeze().cpu().numpy()
    shown = [i for i, name in enumerate(classes) if name != "background" and (labels == i).any()]
    for index in shown:
        where = labels == index
        canvas[where] = 0.45 * canvas[where] + 0.55 * np.array(colour(index))
    canvas = Image.fromarray(canvas.astype(np.uint8))
    factor = max(1.0, MIN_WIDTH / canvas.width)
    canvas = canvas.resize((round(canvas.width * factor), round(canvas.height * factor)))
    draw, font, left = ImageDraw.Draw(canvas), ImageFont.load_default(13), 4
    captions = [(classes[index], colour(index)) for index in shown]
    for text, fill in captions or [("background only", GRAY)]:
        box = draw.textbbox((left, 2), text, font=font)
        draw.rectangle(box, fill=fill)
        draw.text((left, 2), text, fill="black", font=font)
        left = box[2] + 6
    return canvas
