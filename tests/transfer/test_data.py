"""A user's labelled data as mmdet and mmseg get it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densessl.errors import UserError
from densessl.transfer.finetune.data import read_data
from tests.labels.damage import learn_from_val, mark_difficult
from tests.tiny_sets import make_coco, make_mask_folders, make_voc


def test_voc_boxes_are_listed_two_folders_down(tmp_path):
    make_voc(tmp_path / "set" / "VOCdevkit" / "VOC2012")
    data = read_data(tmp_path / "set", "detection", tmp_path / "lists", ["square"])
    assert (data.classes, data.val_images) == (["square"], 4)
    assert data.evaluator["eval_mode"] == "area" and "area" in data.metric_note
    entries = json.loads(Path(data.train["ann_file"]).read_text())
    assert len(entries) == data.train_images
    assert all(box["bbox_label"] == 0 for e in entries for box in e["instances"])


def test_detectors_learn_from_images_with_an_object_that_counts(tmp_path):
    root = make_voc(tmp_path / "set")
    for name in ("train_3", "val_1"):
        mark_difficult(root, name)
    data = read_data(root, "detection", tmp_path / "lists")
    entries = json.loads(Path(data.train["ann_file"]).read_text())
    assert [e["img_id"] for e in entries] == [f"train_{i}" for i in (0, 1, 2, 4, 5, 6, 7)]
    assert (data.train_images, data.val_images) == (7, 4)


@pytest.mark.parametrize("task,metric", [("detection", ["bbox"]), ("instance", ["bbox", "segm"])])
def test_coco_is_read_by_mmdet(tmp_path, task, metric):
    root = make_coco(tmp_path / "set")
    data = read_data(root, task, tmp_path / "lists")
    assert (data.classes, data.train_images, data.val_images) == (["disc", "square"], 8, 4)
    assert data.evaluator["metric"] == metric
    assert data.train["data_prefix"]["img"].endswith("train2017/")
    assert data.train["filter_cfg"]["min_size"] == 0  # images may be as small as they are
    path = root / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][1]["area"] = 0
    path.write_text(json.dumps(content))
    note = read_data(root, task, tmp_path / "lists").metric_note
    assert note.endswith("; 1 objects without an area count as missed")


def test_mmdet_gets_json_without_a_byte_order_mark(tmp_path):
    root = make_coco(tmp_path / "set")
    path = root / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    data = read_data(root, "detection", tmp_path / "lists")
    assert data.evaluator["ann_file"] == data.val["ann_file"] != str(path)
    assert json.loads(Path(data.val["ann_file"]).read_text()) == content  # as pycocotools reads it
    assert data.train["ann_file"] == str(root / "annotations" / "instances_train2017.json")


@pytest.mark.parametrize(
    ("make", "task"),
    [
        (make_voc, "detection"),
        (make_voc, "segmentation"),
        (make_coco, "detection"),
    ],
)
def test_images_in_both_parts_are_counted(tmp_path, make, task):
    root = make(tmp_path / "set")
    assert "both parts" not in read_data(root, task, tmp_path / "lists").metric_note
    learn_from_val(root)
    note = read_data(root, task, tmp_path / "lists").metric_note
    assert note.endswith("; images in both parts, learned from and judged on: 4")


def test_masks_are_listed(tmp_path):
    root = make_mask_folders(tmp_path / "set")
    data = read_data(root, "segmentation", tmp_path / "lists", ["0=nothing", "2=square"])
    assert data.classes == ["nothing", "square"]
    assert (data.train_images, data.val_images) == (8, 4)
    assert data.train["indices_of"] == {"0": 0, "1": 255, "2": 1}
    assert "; nothing everywhere would score mIoU " in data.metric_note
    assert data.metric_note.endswith("not asked for and ignored: class 1")


def corrected_mask(root):
    path = root / "SegmentationClass" / "val_0.png"
    pixels = np.array(Image.open(path))
    pixels[0, 0] = 2 - pixels[0, 0]
    Image.fromarray(pixels).save(path)


def corrected_box(root):
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][2] += 1
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "make, task, correct",
    [(make_voc, "segmentation", corrected_mask), (make_coco, "detection", corrected_box)],
)
def test_corrected_labels_have_another_hash(tmp_path, make, task, correct):
    root = make(tmp_path / "set")
    hashes = [read_data(root, task, tmp_path / "lists").labels_sha256 for _ in range(2)]
    correct(root)
    hashes.append(read_data(root, task, tmp_path / "lists").labels_sha256)
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    ("make", "task"),
    [(make_voc, "detection"), (make_coco, "detection"), (make_mask_folders, "segmentation")],
)
def test_data_that_moved_have_the_same_hash(tmp_path, make, task):
    folder = make(tmp_path / "here")
    before = read_data(folder, task, tmp_path / "lists").labels_sha256
    folder = folder.rename(tmp_path / "there")
    assert read_data(folder, task, tmp_path / "lists").labels_sha256 == before


def test_lists_of_other_labels_stay(tmp_path):
    """Finished jobs point to them, also when a comparison of other data is refused."""
    root = make_voc(tmp_path / "set")
    first = read_data(root, "segmentation", tmp_path / "lists").train["ann_file"]
    before = Path(first).read_text()
    corrected_mask(root)
    assert read_data(root, "segmentation", tmp_path / "lists").train["ann_file"] != first
    assert Path(first).read_text() == before


@pytest.mark.parametrize(
    ("make", "task", "message"),
    [
        (lambda root: root, "detection", "does not exist"),
        (lambda root: root.mkdir(), "detection", "is empty"),
        (lambda root: (root / "stuff").mkdir(parents=True), "detection", "no layout known"),
        (make_voc, "instance", "no layout known for instance"),
    ],
)
def test_folders_without_such_labels_are_named(tmp_path, make, task, message):
    make(tmp_path / "set")
    with pytest.raises(UserError, match=message):
        read_data(tmp_path / "set", task, tmp_path / "lists")
