"""A user's labelled data as mmdet and mmseg want it: configs of two sets and of the metric."""

import codecs
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from densessl.errors import UserError
from densessl.files import examples
from densessl.labels import coco, masks, voc
from densessl.labels.folders import LAYOUTS, check_folder, overlap, places

IOU_THRESHOLDS = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
VOC_NOTE = (
    "VOC-style: AP is the area under the precision-recall curve, mean over IoU .50:.95 and "
    "classes; objects marked difficult are ignored; not comparable to VOC07's 11-point numbers"
)


@dataclass(frozen=True)
class LabelledData:
    """A labelled data set, ready for mmdet or mmseg.

    Attributes:
        name: The folder's name.
        classes: In the order of the labels.
        train_images: How many there are to train on.
        val_images: How many the metric is computed on.
        metric_note: What exactly the metric is.
        train: Config of the training set, without pipeline.
        val: Config of the evaluation set, without pipeline.
        evaluator: Config of the metric.
        labels_sha256: Hash of all labels, which corrected ones change.
    """

    name: str
    classes: list[str]
    train_images: int
    val_images: int
    metric_note: str
    train: dict
    val: dict
    evaluator: dict
    labels_sha256: str


def read_data(
    folder: str | Path, task: str, out_dir: str | Path, classes: list[str] | None = None
) -> LabelledData:
    """Finds the layout of ``folder`` and reads its labels.

    Args:
        folder: The data set.
        task: ``detection``, ``instance`` or ``segmentation``.
        out_dir: Where lists for the training are written.
        classes: The classes to use; read from the data by default. For masks also ``INDEX=NAME``.

    Raises:
        UserError: The folder is missing, empty, of no known layout, without labels for the task,
            or does not have the classes asked for.
    """
    folder = check_folder(folder)
    readers = {
        "detection": (_voc_boxes, _coco_boxes),
        "instance": (_coco_masks,),
        "segmentation": (_class_masks,),
    }
    for place in places(folder):
        for reader in readers[task]:
            data = reader(place, classes, Path(out_dir))
            if data is not None:
                return data
    names = examples(sorted(p.name for p in folder.iterdir()), most=8)
    raise UserError(
        f"{folder} has no layout known for {task}; it holds: {names}.",
        f"Give {LAYOUTS[task]}.",
    )


def _voc_boxes(folder: Path, classes: list[str] | None, out_dir: Path) -> LabelledData | None:
    found = voc.find(folder, classes)
    if found is None:
        return None
    chosen, train, val = found
    return _listed(
        folder,
        dict(type="ListedBoxes", metainfo=dict(classes=chosen)),
        ([entry for entry in train if voc.has_object(entry)], val),  # detectors learn from boxes
        out_dir,
        metric_note=VOC_NOTE,
        evaluator=dict(type="ExactVOCMetric", iou_thrs=IOU_THRESHOLDS, eval_mode="area"),
    )


def _class_masks(folder: Path, classes: list[str] | None, out_dir: Path) -> LabelledData | None:
    found = masks.find(folder, classes)
    if found is None:
        return None
    metainfo = dict(classes=found.classes)
    return _listed(
        folder,
        dict(type="ListedMasks", indices_of=found.indices_of, metainfo=metainfo),
        (found.train, found.val),
        out_dir,
        metric_note=f"mIoU over {len(found.classes)} classes, single scale, pixels of 255 ignored; "
        f"{found.chance}{found.note}",
        evaluator=dict(type="ExactIoUMetric"),
    )


def _coco_boxes(folder: Path, classes: list[str] | None, out_dir: Path) -> LabelledData | None:
    return _coco(folder, classes, out_dir, ["bbox"])


def _coco_masks(folder: Path, classes: list[str] | None, out_dir: Path) -> LabelledData | None:
    return _coco(folder, classes, out_dir, ["bbox", "segm"])


def _coco(
    folder: Path, classes: list[str] | None, out_dir: Path, metrics: list[str]
) -> LabelledData | None:
    found = coco.find(folder, classes, masks="segm" in metrics)
    if found is None:
        return None
    chosen, train, val = found
    common = dict(type="CocoDataset", metainfo=dict(classes=chosen))
    sets = [
        dict(
            **common,
            ann_file=_without_mark(part.file, out_dir),
            data_prefix=dict(img=f"{part.images}/"),
        )
        for part in (train, val)
    ]
    files = (
        [str(part.images / image["file_name"]) for image in part.content["images"]]
        for part in (train, val)
    )
    flat = sum(not coco.has_area(a) for a in val.annotations)
    return LabelledData(
        name=folder.name,
        classes=chosen,
        train_images=len({a["image_id"] for a in train.annotations}),
        val_images=len(val.content["images"]),
        metric_note="COCO AP: 101-point, mean over IoU .50:.95 and classes, at most 100 "
        "detections an image"
        + (f"; {flat} objects without an area count as missed" if flat else "")
        + _shared(*files),
        # No minimum size: users' images may be small.
        train=dict(**sets[0], filter_cfg=dict(filter_empty_gt=True, min_size=0)),
        val=dict(**sets[1], test_mode=True),
        evaluator=dict(type="ExactCocoMetric", ann_file=sets[1]["ann_file"], metric=metrics),
        labels_sha256=hashlib.sha256(train.file.read_bytes() + val.file.read_bytes()).hexdigest(),
    )


def _without_mark(file: Path, out_dir: Path) -> str:
    """The json, or a copy without the byte-order mark, at which mmdet stops."""
    content = file.read_bytes()
    if not content.startswith(codecs.BOM_UTF8):
        return str(file)
    out_dir.mkdir(parents=True, exist_ok=True)
    copy = out_dir / f"{file.stem}_{hashlib.sha256(content).hexdigest()[:12]}.json"
    copy.write_bytes(content.removeprefix(codecs.BOM_UTF8))
    return str(copy.resolve())


def _shared(train: list[str], val: list[str]) -> str:
    """What the note of the metric says of images in both parts."""
    note = overlap(train, val)
    return note and f"; {note}"


def _listed(
    folder: Path,
    common: dict,
    entries: tuple[list[dict], list[dict]],
    out_dir: Path,
    metric_note: str,
    evaluator: dict,
) -> LabelledData:
    """A data set whose images stand in lists of our own.

    Args:
        folder: Names the data set.
        common: What the configs of both sets have, the classes in ``metainfo``.
        entries: To train on, and to evaluate on: mm's dict of each image.
        out_dir: Where the lists are written.
        metric_note: What exactly the metric is.
        evaluator: Config of the metric.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    texts = [json.dumps(images) for images in entries]
    bare = "".join(text.replace(json.dumps(str(folder))[1:-1], "") for text in texts)  # it may move
    digest = hashlib.sha256(bare.encode()).hexdigest()
    sets = []
    for name, text in zip(("train", "val"), texts, strict=True):
        # Named by the labels: what another comparison has listed here stays.
        path = out_dir / f"{name}_{digest[:12]}.json"
        path.write_text(text)
        sets.append(dict(**common, ann_file=str(path.resolve())))
    train, val = sets
    return LabelledData(
        name=folder.name,
        classes=common["metainfo"]["classes"],
        train_images=len(entries[0]),
        val_images=len(entries[1]),
        train=train,
        val=dict(val, test_mode=True),
        labels_sha256=digest,
        metric_note=metric_note + _shared(*([e["img_path"] for e in part] for part in entries)),
        evaluator=evaluator,
    )
