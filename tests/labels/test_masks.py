"""Masks of class indices, and what is wrong with them."""

import numpy as np
import pytest
from PIL import Image

from densessl.errors import UserError
from densessl.labels import masks
from tests.labels.damage import replace_in, turn
from tests.tiny_sets import make_mask_folders, make_voc


@pytest.mark.parametrize("make", [make_voc, make_mask_folders])
def test_finds_pairs(tmp_path, make):
    found = masks.find(make(tmp_path), None)
    names = ["disc", "square"] if make is make_voc else ["class 1", "class 2"]
    assert found.classes == ["background", *names]
    assert (len(found.train), len(found.val)) == (8, 4)
    assert found.indices_of == {"0": 0, "1": 1, "2": 2}


def test_hidden_files_are_no_images(tmp_path):
    root = make_mask_folders(tmp_path)
    (root / "images/train/._0.png").write_bytes(b"of macOS")
    assert len(masks.find(root, None).train) == 8


@pytest.mark.parametrize(("shown", "kept"), [(1, False), (2, True)])
def test_a_class_of_few_evaluation_images_is_left_out_and_said(tmp_path, shown, kept):
    root = make_mask_folders(tmp_path, train=4, val=24)  # a share of 0.05 is 1.2 of them
    for path in (root / "masks/train/0.png", *(root / f"masks/val/{i}.png" for i in range(shown))):
        pixels = np.array(Image.open(path))
        pixels[0, 0] = 7
        Image.fromarray(pixels).save(path)
    found = masks.find(root, None)
    assert ("class 7" in found.classes) == kept
    assert found.indices_of["7"] == (3 if kept else 255)
    assert found.note.endswith("too rare to evaluate and ignored: class 7") != kept


def test_masks_beside_vocs_own_objects_have_vocs_names(tmp_path):
    root = make_voc(tmp_path)
    (root / "classes.txt").unlink()
    for old, new in (("disc", "cat"), ("square", "dog")):
        for path in (root / "Annotations").iterdir():
            replace_in(path, old, new)
    assert masks.find(root, None).classes == ["background", "aeroplane", "bicycle"]
    replace_in(root / "Annotations" / "train_0.xml", "<name>", "<name>ro")
    assert masks.find(root, None).classes == ["background", "class 1", "class 2"]


def test_classes_by_index_leave_the_rest_out(tmp_path):
    found = masks.find(make_mask_folders(tmp_path), ["0=nothing", "2=square"])
    assert found.classes == ["nothing", "square"]
    assert found.indices_of == {"0": 0, "1": 255, "2": 1}


def test_a_note_names_the_classes_that_are_not_asked_for(tmp_path):
    found = masks.find(make_mask_folders(tmp_path), ["background", "class 2"])
    assert found.note.endswith("not asked for and ignored: class 1")


def test_classes_by_index_need_no_name_of_the_others(tmp_path):
    root = make_mask_folders(tmp_path)
    (root / "classes.txt").write_bytes(b"\xef\xbb\xbfnothing\n")  # of Windows, and too few
    with pytest.raises(UserError, match="names 1 classes, but the masks use index 2"):
        masks.find(root, None)
    found = masks.find(root, ["0=background", "2=square"])
    assert found.classes == ["background", "square"]
    assert found.note.endswith("not asked for and ignored: class 1")
    for twice in (["0=a", "2=a"], ["0=a", "0=b"]):
        with pytest.raises(UserError, match="is there twice"):
            masks.find(root, twice)


def test_chance_is_the_commonest_class_of_training_everywhere(tmp_path):
    root = make_mask_folders(tmp_path)
    for part, ends in (("train", (10, 80, 90)), ("val", (72, 90, 96))):
        pixels = np.full((96, 96), 255, np.uint8)
        for value, start, end in zip(range(3), (0, *ends), ends, strict=False):
            pixels[start:end] = value
        pixels[90:] = 255
        for path in (root / "masks" / part).iterdir():
            Image.fromarray(pixels).save(path)
    # Rows in training: 10, 70, 10; in evaluation 72, 18, 0; the rest is ignored.
    for classes, expected in (
        (["0=a", "1=b", "2=c"], "b everywhere would score mIoU 10.0, aAcc 20.0"),
        (["0=a", "2=c"], "a everywhere would score mIoU 100.0, aAcc 100.0"),
    ):
        assert masks.find(root, classes).chance == expected


@pytest.mark.parametrize(
    ("part", "words"), [("train", "never learned: class 1"), ("val", "taken for it: class 1")]
)
def test_a_class_asked_for_that_one_part_lacks_is_said(tmp_path, part, words):
    root = make_mask_folders(tmp_path)
    for path in (root / "masks" / part).iterdir():
        pixels = np.array(Image.open(path))
        Image.fromarray(np.where(pixels == 1, 2, pixels)).save(path)
    assert masks.find(root, ["background", "class 1", "class 2"]).note.endswith(words)
    assert "class 1" not in masks.find(root, ["background", "class 2"]).note.partition("ask")[0]


def test_masks_without_a_pixel_to_judge_on_are_refused(tmp_path):
    root = make_mask_folders(tmp_path)
    for path in (root / "masks" / "val").iterdir():
        Image.fromarray(np.zeros((96, 96), np.uint8)).save(path)
    with pytest.raises(UserError, match="The evaluation masks of .* show none of"):
        masks.find(root, ["1=disc", "2=square"])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0: sky\n1: disc\n2: square", ["0: sky", "1: disc", "2: square"]),
        ("none\nvehicle: car\nvehicle: truck", ["none", "vehicle: car", "vehicle: truck"]),
        (
            "# label:color_rgb:parts:actions\n\nnone:0,0,0::\na b:9,9,9::\nc:::",
            ["none", "a b", "c"],
        ),
        ("none: 0, 0, 0\nopen 12:30\nc", ["none", "open 12:30", "c"]),
    ],
)
def test_of_a_labelmap_the_names_are_read_and_other_names_are_whole(tmp_path, text, names):
    root = make_mask_folders(tmp_path)
    (root / "labelmap.txt").write_text(text)
    assert masks.find(root, None).classes == names


def test_one_class_alone_is_refused(tmp_path):
    with pytest.raises(UserError, match="fewer than two classes.*\n.*background as well"):
        masks.find(make_mask_folders(tmp_path), ["class 1"])


def test_masks_of_the_upright_image_pass(tmp_path):
    root = make_voc(tmp_path)
    turn(root / "JPEGImages" / "train_0.jpg")
    mask = root / "SegmentationClass" / "train_0.png"
    Image.open(mask).crop((0, 0, 96, 64)).save(mask)
    assert masks.find(root, None)


def convert(mode):
    def spoil(root):
        path = root / "masks" / "train" / "0.png"
        Image.open(path).convert(mode).save(path)

    return spoil


def black_and_white(root):
    for path in (root / "masks").rglob("*.png"):
        Image.fromarray((np.array(Image.open(path)) > 0).astype(np.uint8) * 255).save(path)


@pytest.mark.parametrize(
    ("make", "spoil", "message"),
    [
        (make_mask_folders, convert("RGB"), "not class indices"),
        (make_mask_folders, convert("1"), "has the mode 1"),
        (make_mask_folders, lambda root: (root / "masks/val/1.png").unlink(), "have no mask"),
        (
            make_mask_folders,
            lambda root: (root / "masks/val/1.png").write_bytes(b"no image"),
            "1.png cannot be read",
        ),
        (make_mask_folders, black_and_white, '"ignore"'),
        (
            make_voc,
            lambda root: turn(root / "JPEGImages" / "val_0.jpg"),
            "val_0.png has 96x96 pixels",
        ),
        (
            make_voc,
            lambda root: (root / "JPEGImages" / "val_1.png").write_bytes(b""),
            "has both val_1.",
        ),
        (
            make_voc,
            lambda root: (root / "classes.txt").write_bytes("düse".encode("latin-1")),
            "classes.txt is no UTF-8 text",
        ),
        (
            make_voc,
            lambda root: (root / "classes.txt").write_text("background\ndisc\ndisc\n"),
            "classes.txt gives several indices of the masks the name disc",
        ),
    ],
)
def test_bad_masks_are_named(tmp_path, make, spoil, message):
    root = make(tmp_path)
    spoil(root)
    with pytest.raises(UserError) as error:
        masks.find(root, None)
    assert message in error.value.problem and error.value.remedy
