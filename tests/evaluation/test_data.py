"""Layouts, splits, labels; and what is said about data that cannot be used."""

import json
import shutil

import numpy as np
import pytest

from densessl.errors import UserError
from densessl.evaluation.data import LabelledSet, Sample, read_data
from tests.evaluation.sets import make_classes, make_split_classes, write_class
from tests.tiny_sets import make_coco, make_mask_folders, make_voc


def test_class_folders_are_split_class_by_class(tmp_path):
    folder = make_classes(tmp_path, (10, 5, 1))
    shutil.copytree(folder / "red", folder / ".ipynb_checkpoints")
    found = read_data(folder, ["images"]).sets["images"]
    assert found.classes == ["blue", "green", "red"]
    assert np.bincount([s.label for s in found.val], minlength=3).tolist() == [2, 1, 0]
    assert np.bincount([s.label for s in found.train]).tolist() == [8, 4, 1]
    assert "red" in found.note  # its only image cannot be judged
    files = [s.path for s in found.train + found.val]
    assert len({*files}) == 16
    assert all(f"/{found.classes[s.label]}/" in s.path for s in found.train + found.val)
    again, other = (read_data(folder, ["images"], seed=seed).sets["images"] for seed in (0, 1))
    assert again.val == found.val != other.val


def test_imagenets_layout_keeps_its_split(tmp_path):
    found = read_data(make_split_classes(tmp_path)).sets["images"]
    assert len(found.train) == 12 and len(found.val) == 6
    assert all("/train/" in s.path for s in found.train)
    chosen = read_data(tmp_path, ["images"], ["red", "blue"]).sets["images"]
    assert chosen.classes == ["blue", "red"] and len(chosen.val) == 4


def test_voc_gives_images_objects_and_masks(tmp_path):
    sets = read_data(make_voc(tmp_path / "voc")).sets
    assert list(sets) == ["images", "objects", "masks"]
    assert sets["images"].classes == ["disc", "square"]
    assert len(sets["images"].train) == 8 and len(sets["objects"].train) == 16
    boxes = {}
    for sample in sets["objects"].train:
        boxes.setdefault(sample.path, set()).add(sample.label)
    for sample in sets["images"].train:
        assert {c for c in (0, 1) if sample.label[c] == 1} == boxes[sample.path]
    assert sets["masks"].classes == ["background", "disc", "square"]
    assert sets["masks"].values[:4].tolist() == [0, 1, 2, 255]
    assert [*read_data(tmp_path / "voc", ["masks"]).sets] == ["masks"]
    assert read_data(tmp_path).sets["objects"] == sets["objects"]  # VOCdevkit/VOC2012


def test_a_difficult_object_says_neither_yes_nor_no(tmp_path):
    make_voc(tmp_path)
    path = tmp_path / "Annotations" / "val_0.xml"
    objects = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>2</xmin>"
        "<ymin>2</ymin><xmax>30</xmax><ymax>30</ymax></bndbox></object>"
        for name, difficult in (("disc", 1), ("square", 1), ("square", 0), ("square", 1))
    )
    path.write_text(f"<annotation>{objects}</annotation>")
    sets = read_data(tmp_path).sets
    (image,) = [s for s in sets["images"].val if "val_0" in s.path]
    assert image.label == (-1, 1)
    (box,) = [s for s in sets["objects"].val if "val_0" in s.path]
    assert box == Sample(image.path, 1, (1.0, 1.0, 29.0, 29.0))


def test_images_without_a_chosen_object_are_examples_of_no(tmp_path):
    root = make_voc(tmp_path)
    whole, chosen = (read_data(root, ["images"], c).sets["images"] for c in (None, ["disc"]))
    assert len(chosen.train) == 8 and len(chosen.val) == 4
    assert [s.label for s in chosen.train] == [s.label[:1] for s in whole.train]
    assert {s.label for s in chosen.train} == {(1,), (0,)}


def test_coco_boxes(tmp_path):
    pytest.importorskip("pycocotools")
    folder = make_coco(tmp_path)
    path = folder / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    first = content["annotations"][0]
    path.write_text(json.dumps(content))
    sets = read_data(folder).sets
    assert list(sets) == ["images", "objects"]
    x, y, width, height = first["bbox"]
    assert sets["objects"].val[0].box == (x, y, x + width, y + height)
    assert sets["objects"].val[0].label == first["category_id"] - 1
    first["iscrowd"] = 1
    path.write_text(json.dumps(content))
    assert len(read_data(folder).sets["objects"].val) == len(sets["objects"].val) - 1


def test_mask_folders(tmp_path):
    found = read_data(make_mask_folders(tmp_path)).sets
    assert list(found) == ["masks"] and len(found["masks"].train) == 8


@pytest.mark.parametrize(
    ("images", "masks", "splits"),
    [
        ("images", "annotations", ("training", "validation")),  # ADE20K's
        ("img_dir", "ann_dir", ("train", "val")),  # mmseg's
        ("images", "masks", ("Train", "Valid")),
    ],
)
def test_mask_folders_of_others(tmp_path, images, masks, splits):
    make_mask_folders(tmp_path / "data")
    for kind, name in (("images", images), ("masks", masks)):
        (tmp_path / "data" / kind).rename(tmp_path / "data" / name)
        for ours, theirs in zip(("train", "val"), splits, strict=True):
            (tmp_path / "data" / name / ours).rename(tmp_path / "data" / name / theirs)
    found = read_data(tmp_path / "data").sets
    assert list(found) == ["masks"]
    assert len(found["masks"].train) == 8 and len(found["masks"].val) == 4


@pytest.mark.parametrize("splits", [("train", "valid"), ("Train", "Valid")])
def test_roboflows_json_beside_its_images(tmp_path, splits):
    folder = make_coco(tmp_path / "data")
    for ours, theirs in zip(("train", "val"), splits, strict=True):
        (folder / f"{ours}2017").rename(folder / theirs)
        (folder / "annotations" / f"instances_{ours}2017.json").rename(
            folder / theirs / "_annotations.coco.json"
        )
    (folder / "annotations").rmdir()
    found = read_data(folder).sets
    assert list(found) == ["images", "objects"] and len(found["images"].val) == 4


@pytest.mark.parametrize(
    "names",
    [
        ("images", "labels"),
        ("leftImg8bit", "gtFine"),
        ("train2017", "val2017", "unlabeled2017"),
        ("train_set", "val_set"),
        ("Train-1", "test2"),
    ],
)
def test_parts_of_a_data_set_are_no_classes(tmp_path, names):
    for name in names:
        write_class(tmp_path / name, "red", 12)
    with pytest.raises(UserError, match="no layout known"):
        read_data(tmp_path)


def test_a_class_may_have_the_name_of_a_part(tmp_path):
    for name in ("bus", "train", "train2", "valley"):
        write_class(tmp_path / name, "red", 12)
    classes = ["bus", "train", "train2", "valley"]
    assert read_data(tmp_path).sets["images"].classes == classes


def test_limit_draws_a_subset():
    whole = LabelledSet(["a", "b"], [Sample(str(i), i % 2) for i in range(20)], [Sample("v", 0)])
    part = whole.limited(5, seed=0)
    assert len(part.train) == 5 and {*part.train} < {*whole.train} and part.val == whole.val
    assert part.train == whole.limited(5, seed=0).train != whole.limited(5, seed=1).train
    assert whole.limited(20, seed=0) is whole.limited(None, seed=0) is whole


def one_class(folder):
    write_class(folder / "only", "red", 12)


def too_few(folder):
    make_classes(folder, (3, 3, 3))


def unseen(folder):
    make_split_classes(folder)
    write_class(folder / "val" / "yellow", "red", 2)


def flat(folder):
    write_class(folder, "red", 12)


def empty(folder):
    folder.mkdir(exist_ok=True)


@pytest.mark.parametrize(
    "make, message",
    [
        (one_class, "has one class, only"),
        (too_few, "6 labelled images to learn from and 3 to evaluate on"),
        (unseen, "that its training part lacks: yellow"),
        (flat, "no layout known for images; it holds: 0.png"),
        (empty, "is empty"),
    ],
)
def test_bad_folders_are_named(tmp_path, make, message):
    make(tmp_path / "data")
    with pytest.raises(UserError, match=message):
        read_data(tmp_path / "data", ["images"])


def test_a_missing_folder(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_data(tmp_path / "nowhere")
