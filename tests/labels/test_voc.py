"""Boxes in VOC's layout, and what is wrong with them."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densessl.errors import UserError
from densessl.labels import voc
from tests.labels.damage import mark_difficult, replace_in, turn
from tests.tiny_sets import make_voc


def test_boxes_are_those_of_the_masks(tmp_path):
    classes, train, val = voc.find(make_voc(tmp_path), None)
    assert (classes, len(train), len(val)) == (["disc", "square"], 8, 4)
    mask = np.asarray(Image.open(tmp_path / "SegmentationClass" / "train_0.png"))
    for box in train[0]["instances"]:
        left, top, right, bottom = (int(v) for v in box["bbox"])
        # VOC counts from 1, mmdet from 0.
        inside = mask[top:bottom, left:right]
        assert set(np.unique(inside)) <= {0, box["bbox_label"] + 1}
        assert all((side != 0).any() for side in (inside[0], inside[-1], inside[:, 0]))


def test_images_without_an_object_that_counts_stay(tmp_path):
    root = make_voc(tmp_path)
    for name in ("train_3", "val_1"):
        mark_difficult(root, name)
    _, train, val = voc.find(root, None)
    assert (len(train), len(val)) == (8, 4)
    assert [voc.has_object(entry) for entry in train[2:5]] == [True, False, True]
    assert [{box["ignore_flag"] for box in e["instances"]} for e in val[:2]] == [{0}, {1}]


def test_keeps_chosen_classes(tmp_path):
    classes, train, _ = voc.find(make_voc(tmp_path, train=12), ["square"])
    assert classes == ["square"]
    assert all(box["bbox_label"] == 0 for e in train for box in e["instances"])


def test_a_class_that_is_not_there_gets_a_suggestion(tmp_path):
    with pytest.raises(UserError, match="no class 'sqare'.*'square'"):
        voc.find(make_voc(tmp_path), ["sqare"])


def test_boxes_of_the_upright_image_pass(tmp_path):
    root = make_voc(tmp_path)
    turn(root / "JPEGImages" / "train_0.jpg")
    xml = root / "Annotations" / "train_0.xml"
    text = re.sub(r"<ymin>\d+(.*?)<ymax>\d+", r"<ymin>9\1<ymax>60", xml.read_text())
    xml.write_text(text.replace("<height>96", "<height>64"))
    voc.find(root, None)
    replace_in(xml, "<height>64", "<height>0")  # as some tools leave it
    entry = voc.find(root, None)[1][0]
    assert (entry["width"], entry["height"]) == (96, 64)


def test_names_with_spaces_and_boxes_of_one_pixel(tmp_path):
    root = make_voc(tmp_path)
    for folder, end in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (root / folder / f"val_1.{end}").rename(root / folder / f"a name.{end}")
    replace_in(root / "ImageSets" / "Main" / "val.txt", "val_1", "a name")
    replace_in(root / "ImageSets" / "Main" / "val.txt", "val_2", "val_2  1")  # as in VOC's lists
    xml = root / "Annotations" / "a name.xml"
    xml.write_text(re.sub(r"<(x|y)(min|max)>\d+", r"<\1\2>7", xml.read_text()))
    _, _, val = voc.find(root, None)
    assert [entry["img_id"] for entry in val[1:3]] == ["a name", "val_2"]
    assert val[1]["instances"][0]["bbox"] == [6, 6, 7, 7]


def test_names_in_lists_may_have_a_suffix(tmp_path):
    root = make_voc(tmp_path)
    replace_in(root / "ImageSets" / "Main" / "val.txt", "val_1", "val_1.jpg")
    replace_in(root / "ImageSets" / "Main" / "val.txt", "val_2", "JPEGImages/val_2.jpg 1")
    _, _, val = voc.find(root, None)
    assert [entry["img_id"] for entry in val] == [f"val_{number}" for number in range(4)]


def test_names_with_dots_are_whole(tmp_path):
    """Only what ends as an image does has a suffix."""
    root = make_voc(tmp_path)
    replace_in(root / "ImageSets" / "Main" / "val.txt", "val_1", "val_1.left")
    with pytest.raises(UserError, match="no image 'val_1.left'"):
        voc.find(root, None)


def without(name):
    return lambda root: (root / name).unlink()


def empty_boxes(root):
    for path in (root / "Annotations").glob("train*.xml"):
        path.write_text(
            "<annotation><size><width>96</width><height>96</height></size></annotation>"
        )


def new_class_in_val(root):
    for name in ("disc", "square"):
        replace_in(root / "Annotations" / "val_0.xml", name, "star")


def braces(root):
    for path in (root / "Annotations").iterdir():
        replace_in(path, "disc", "{{ disc }}")


def in_train_3(pattern, new):
    def spoil(root):
        path = root / "Annotations" / "train_3.xml"
        path.write_text(re.sub(pattern, new, path.read_text(), count=1))

    return spoil


def move_boxes(root):
    for name in ("train_1", "val_1"):
        path = root / "Annotations" / f"{name}.xml"
        path.write_text(re.sub(r"<x(min|max)>", r"<x\1>9", path.read_text()))  # 23 becomes 923


def webp_on_its_side(root, called="val_1.webp"):
    webp = Path((root / "JPEGImages" / "val_1.jpg").rename(root / "JPEGImages" / "val_1.webp"))
    turn(webp)
    webp.rename(root / "JPEGImages" / called)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("Annotations/train_3.xml"), "train_3.xml is missing"),
        (
            lambda root: (root / "Annotations/train_3.xml").write_text("<annotation>"),
            "train_3.xml cannot be read",
        ),
        (in_train_3(r"<xmin>\d+", "<xmin>nan"), "train_3.xml cannot be read: a box whose corners"),
        (in_train_3(r"<ymax>\d+", "<ymax>inf"), "train_3.xml cannot be read: a box whose corners"),
        (in_train_3(r"<width>\d+", "<width>inf"), "train_3.xml cannot be read"),
        (in_train_3("<name>[a-z]+", "<name> "), "train_3.xml cannot be read: an <object> without"),
        (in_train_3("<name>.*?</name>", ""), "train_3.xml cannot be read: an <object> without"),
        (without("JPEGImages/val_1.jpg"), "no image 'val_1'"),
        (empty_boxes, "have no boxes"),
        (without("ImageSets/Main/val.txt"), "no train.txt with val.txt"),
        (lambda root: (root / "ImageSets/Main/val.txt").write_text("\n"), "names no image"),
        (
            lambda root: mark_difficult(root, "train_*"),
            "The training images of",
        ),
        (
            lambda root: mark_difficult(root, "val_*"),
            "The evaluation images of",
        ),
        (new_class_in_val, "no training image shows: star"),
        (lambda root: turn(root / "JPEGImages/train_3.jpg"), "train_3.xml has 96x96 pixels"),
        (move_boxes, "2 in all:\n  train_1.xml: "),
        (lambda root: (root / "JPEGImages/val_1.png").write_bytes(b""), "has both val_1."),
        (webp_on_its_side, "turned by its EXIF"),
        (lambda root: webp_on_its_side(root, called="val_1.jpg"), "turned by its EXIF"),
        (braces, "has the class '{{ disc }}'"),
    ],
)
def test_bad_boxes_are_named(tmp_path, spoil, message):
    root = make_voc(tmp_path)
    spoil(root)
    with pytest.raises(UserError) as error:
        voc.find(root, None)
    assert message in error.value.problem and error.value.remedy
