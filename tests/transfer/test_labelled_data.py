"""A user's labelled data: the layouts, and what is wrong with them, said before training."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densessl.errors import UserError
from densessl.transfer.finetune.data import read_data
from tests.transfer.tiny_sets import make_coco, make_mask_folders, make_voc


def test_reads_voc_boxes(tmp_path):
    data = read_data(make_voc(tmp_path / "set"), "detection", tmp_path / "lists")
    assert (data.classes, data.train_images, data.val_images) == (["disc", "square"], 8, 4)
    assert data.evaluator["eval_mode"] == "area" and "area" in data.metric_note
    entry = json.loads(Path(data.train["ann_file"]).read_text())[0]
    mask = np.asarray(Image.open(tmp_path / "set" / "SegmentationClass" / "train_0.png"))
    for box in entry["instances"]:
        left, top, right, bottom = (int(v) for v in box["bbox"])
        # The box is the mask's: VOC counts from 1, mmdet from 0.
        inside = mask[top:bottom, left:right]
        assert set(np.unique(inside)) <= {0, box["bbox_label"] + 1}
        assert all((side != 0).any() for side in (inside[0], inside[-1], inside[:, 0]))


def test_training_images_with_nothing_but_difficult_boxes_are_left_out(tmp_path):
    root = make_voc(tmp_path / "set")
    for name in ("train_3", "val_1"):
        replace_in(
            root / "Annotations" / f"{name}.xml", "<bndbox>", "<difficult>1</difficult><bndbox>"
        )
    data = read_data(root, "detection", tmp_path / "lists")
    assert (data.train_images, data.val_images) == (7, 4)
    entries = json.loads(Path(data.val["ann_file"]).read_text())
    assert [{box["ignore_flag"] for box in e["instances"]} for e in entries[:2]] == [{0}, {1}]


def test_finds_voc_two_folders_down_and_keeps_chosen_classes(tmp_path):
    make_voc(tmp_path / "set" / "VOCdevkit" / "VOC2012", train=12)
    data = read_data(tmp_path / "set", "detection", tmp_path / "lists", ["square"])
    assert data.classes == ["square"]
    entries = json.loads(Path(data.train["ann_file"]).read_text())
    assert all(box["bbox_label"] == 0 for e in entries for box in e["instances"])


@pytest.mark.parametrize("task,metric", [("detection", ["bbox"]), ("instance", ["bbox", "segm"])])
def test_reads_coco(tmp_path, task, metric):
    data = read_data(make_coco(tmp_path / "set"), task, tmp_path / "lists")
    assert (data.classes, data.train_images, data.val_images) == (["disc", "square"], 8, 4)
    assert data.evaluator["metric"] == metric
    assert data.train["data_prefix"]["img"].endswith("train2017/")
    assert data.train["filter_cfg"]["min_size"] == 0  # images may be as small as they are


@pytest.mark.parametrize("make", [make_voc, make_mask_folders])
def test_reads_masks(tmp_path, make):
    data = read_data(make(tmp_path / "set"), "segmentation", tmp_path / "lists")
    names = ["disc", "square"] if make is make_voc else ["class 1", "class 2"]
    assert data.classes == ["background", *names]
    assert (data.train_images, data.val_images) == (8, 4)
    assert data.train["indices_of"] == {"0": 0, "1": 1, "2": 2}


@pytest.mark.parametrize(("shown", "kept"), [(1, False), (2, True)])
def test_a_mask_class_of_few_evaluation_images_is_left_out_and_said(tmp_path, shown, kept):
    root = make_mask_folders(tmp_path / "set", train=4, val=24)  # a share of 0.05 is 1.2 of them
    for path in (root / "masks/train/0.png", *(root / f"masks/val/{i}.png" for i in range(shown))):
        pixels = np.array(Image.open(path))
        pixels[0, 0] = 7
        Image.fromarray(pixels).save(path)
    data = read_data(root, "segmentation", tmp_path / "lists")
    assert ("class 7" in data.classes) == kept
    assert data.train["indices_of"]["7"] == (3 if kept else 255)
    assert data.metric_note.endswith("too rare to evaluate and ignored: class 7") != kept


def test_masks_beside_vocs_own_objects_have_vocs_names(tmp_path):
    root = make_voc(tmp_path / "set")
    (root / "classes.txt").unlink()
    for old, new in (("disc", "cat"), ("square", "dog")):
        for path in (root / "Annotations").iterdir():
            replace_in(path, old, new)
    data = read_data(root, "segmentation", tmp_path / "lists")
    assert data.classes == ["background", "aeroplane", "bicycle"]
    replace_in(root / "Annotations" / "train_0.xml", "<name>", "<name>ro")
    data = read_data(root, "segmentation", tmp_path / "lists")
    assert data.classes == ["background", "class 1", "class 2"]


def test_mask_classes_by_index_leave_the_rest_out(tmp_path):
    root = make_mask_folders(tmp_path / "set")
    data = read_data(root, "segmentation", tmp_path / "lists", ["0=nothing", "2=square"])
    assert data.classes == ["nothing", "square"]
    assert data.train["indices_of"] == {"0": 0, "1": 255, "2": 1}


def test_a_note_names_the_mask_classes_that_are_not_asked_for(tmp_path):
    root = make_mask_folders(tmp_path / "set")
    data = read_data(root, "segmentation", tmp_path / "lists", ["background", "class 2"])
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


def turn(path):
    """Stores the image on its side, with the EXIF orientation that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.crop((0, 0, 96, 64)).rotate(90, expand=True).save(path, exif=exif, quality=95)


@pytest.mark.parametrize(
    ("make", "task"),
    [(make_voc, "detection"), (make_coco, "detection"), (make_mask_folders, "segmentation")],
)
def test_data_that_moved_have_the_same_hash(tmp_path, make, task):
    folder = make(tmp_path / "here")
    before = read_data(folder, task, tmp_path / "lists").labels_sha256
    folder = folder.rename(tmp_path / "there")
    assert read_data(folder, task, tmp_path / "lists").labels_sha256 == before


def test_labels_of_the_upright_image_pass(tmp_path):
    root = make_voc(tmp_path / "set")
    turn(root / "JPEGImages" / "train_0.jpg")
    mask, xml = root / "SegmentationClass" / "train_0.png", root / "Annotations" / "train_0.xml"
    Image.open(mask).crop((0, 0, 96, 64)).save(mask)
    text = re.sub(r"<ymin>\d+(.*?)<ymax>\d+", r"<ymin>9\1<ymax>60", xml.read_text())
    xml.write_text(text.replace("<height>96", "<height>64"))
    read_data(root, "segmentation", tmp_path / "lists")
    read_data(root, "detection", tmp_path / "lists")
    xml.write_text(xml.read_text().replace("<height>64", "<height>0"))
    data = read_data(root, "detection", tmp_path / "lists")
    entry = json.loads(Path(data.train["ann_file"]).read_text())[0]
    assert (entry["width"], entry["height"]) == (96, 64)


def remove_masks(root):
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    for item in content["annotations"]:
        item["segmentation"] = []
    path.write_text(json.dumps(content))


def empty_boxes(root):
    for path in (root / "Annotations").glob("train*.xml"):
        path.write_text(
            "<annotation><size><width>96</width><height>96</height></size></annotation>"
        )


def colour_mask(root):
    path = root / "masks" / "train" / "0.png"
    Image.open(path).convert("RGB").save(path)


def coco_change(split, change):
    def spoil(root):
        path = root / "annotations" / f"instances_{split}2017.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return spoil


def star_in_val(content):
    content["annotations"][0]["category_id"] = 3


def star_in_both(root):
    for split in ("train", "val"):
        coco_change(split, lambda c: c["categories"].append(dict(id=3, name="star")))(root)
    coco_change("val", star_in_val)(root)


def black_and_white(root):
    for path in (root / "masks").rglob("*.png"):
        Image.fromarray((np.array(Image.open(path)) > 0).astype(np.uint8) * 255).save(path)


def new_class_in_val(root):
    path = root / "Annotations" / "val_0.xml"
    path.write_text(path.read_text().replace("disc", "star").replace("square", "star"))


A = "annotations"


def same_names(root):
    for split in ("train", "val"):
        coco_change(split, lambda c: c["categories"].append(dict(id=3, name="disc")))(root)


def replace_in(path, old, new):
    path.write_text(path.read_text().replace(old, new))


def move_boxes(path):
    path.write_text(re.sub(r"<x(min|max)>", r"<x\1>9", path.read_text()))  # 23 becomes 923


def webp_on_its_side(root):
    (root / "JPEGImages" / "val_1.jpg").rename(root / "JPEGImages" / "val_1.webp")
    turn(root / "JPEGImages" / "val_1.webp")


def one_bit(root):
    path = root / "masks" / "train" / "0.png"
    Image.open(path).convert("1").save(path)


BAD_DATA = {
    "no VOC annotation file": (
        make_voc,
        "detection",
        lambda root: (root / "Annotations" / "train_3.xml").unlink(),
        "train_3.xml is missing",
    ),
    "broken xml": (
        make_voc,
        "detection",
        lambda root: (root / "Annotations" / "train_3.xml").write_text("<annotation>"),
        "train_3.xml cannot be read",
    ),
    "no image": (
        make_voc,
        "detection",
        lambda root: (root / "JPEGImages" / "val_1.jpg").unlink(),
        "no image 'val_1'",
    ),
    "no boxes": (make_voc, "detection", empty_boxes, "have no boxes"),
    "no split": (
        make_voc,
        "detection",
        lambda root: (root / "ImageSets" / "Main" / "val.txt").unlink(),
        "no train.txt with val.txt",
    ),
    "empty split": (
        make_voc,
        "detection",
        lambda root: (root / "ImageSets" / "Main" / "val.txt").write_text("\n"),
        "names no image",
    ),
    "class only in val": (make_voc, "detection", new_class_in_val, "no training image shows: star"),
    "boxes without masks": (make_coco, "instance", remove_masks, "boxes but no masks"),
    "COCO image missing": (
        make_coco,
        "detection",
        lambda root: (root / "train2017" / "0.jpg").unlink(),
        "1 images of instances_train2017.json",
    ),
    "broken json": (
        make_coco,
        "detection",
        lambda root: (root / "annotations" / "instances_val2017.json").write_text("{"),
        "instances_val2017.json cannot be read",
    ),
    "masks in colour": (make_mask_folders, "segmentation", colour_mask, "not class indices"),
    "mask missing": (
        make_mask_folders,
        "segmentation",
        lambda root: (root / "masks" / "val" / "1.png").unlink(),
        "have no mask",
    ),
    "VOC image on its side": (
        make_voc,
        "detection",
        lambda root: turn(root / "JPEGImages" / "train_3.jpg"),
        "train_3.xml has 96x96 pixels",
    ),
    "mask of an image on its side": (
        make_voc,
        "segmentation",
        lambda root: turn(root / "JPEGImages" / "val_0.jpg"),
        "val_0.png has 96x96 pixels",
    ),
    "COCO image on its side": (
        make_coco,
        "detection",
        lambda root: turn(root / "val2017" / "2.jpg"),
        "The entry of 2.jpg in",
    ),
    "broken image": (
        make_coco,
        "detection",
        lambda root: (root / "train2017" / "1.jpg").write_bytes(b"no image"),
        "1.jpg cannot be read",
    ),
    "broken mask": (
        make_mask_folders,
        "segmentation",
        lambda root: (root / "masks" / "val" / "1.png").write_bytes(b"no image"),
        "1.png cannot be read",
    ),
    "annotation without image": (
        make_coco,
        "detection",
        coco_change("val", lambda c: c["annotations"][0].update(image_id=77)),
        "belongs to image 77",
    ),
    "box of three numbers": (
        make_coco,
        "detection",
        coco_change("train", lambda c: c["annotations"][0].update(bbox=[1, 2, 3])),
        "has the bbox [1, 2, 3]",
    ),
    "COCO class only in val": (make_coco, "detection", star_in_both, "image shows: star"),
    "masks of 0 and 255": (make_mask_folders, "segmentation", black_and_white, '"ignore"'),
    "COCO categories in another order": (
        make_coco,
        "detection",
        coco_change("val", lambda c: c["categories"].reverse()),
        "do not have the same categories",
    ),
    **{
        f"COCO annotation with {key} {value!r}": (
            make_coco,
            "instance",
            coco_change("val", lambda c, key=key, value=value: c[A][2].update({key: value})),
            message,
        )
        for key, value, message in (
            ("category_id", 0, "has the category 0"),
            ("area", None, "has the area None"),
            ("iscrowd", "no", "has iscrowd 'no'"),
            ("category_id", [1], "has an id that is none"),
            ("bbox", [200, 5, 9, 9], "outside of their image: those with the id 3."),
            ("segmentation", [[1, 2, 3, 4]], "a segmentation that is none: those with the id 3."),
            ("segmentation", [1, 2, 3, 4, 5, 6], "a segmentation that is none"),
            ("segmentation", [[]], "a segmentation that is none"),
            ("segmentation", dict(counts=[9216], size=[96, 95]), "a segmentation that is none"),
        )
    },
    "COCO width in quotes": (
        make_coco,
        "detection",
        coco_change("train", lambda c: c["images"][0].update(width="96")),
        "is '0.jpg' of '96' x 96 pixels",
    ),
    "COCO category without a name": (
        make_coco,
        "detection",
        coco_change("train", lambda c: c["categories"][0].update(name=7)),
        "has the name 7",
    ),
    "COCO categories of one name": (make_coco, "detection", same_names, "several categories"),
    "COCO boxes in shares of the image": (
        make_coco,
        "detection",
        coco_change("train", lambda c: [a.update(bbox=[0.1, 0.1, 0.5, 0.5]) for a in c[A]]),
        "can be learned from",
    ),
    "COCO boxes without area": (
        make_coco,
        "detection",
        coco_change("val", lambda c: [a.update(area=0) for a in c[A]]),
        "can be learned from",
    ),
    "COCO ids twice": (
        make_coco,
        "detection",
        coco_change("val", lambda c: [a.update(id=5) for a in c[A]]),
        "share their id",
    ),
    "VOC box outside": (
        make_voc,
        "detection",
        lambda root: [
            move_boxes(root / "Annotations" / f"{name}_1.xml") for name in ("train", "val")
        ],
        "2 in all:\n  train_1.xml: ",
    ),
    "two images of one name": (
        make_voc,
        "segmentation",
        lambda root: (root / "JPEGImages" / "val_1.png").write_bytes(b""),
        "has both val_1.",
    ),
    "WebP on its side": (make_voc, "detection", webp_on_its_side, "turned by its EXIF"),
    "WebP on its side that is called JPEG": (
        make_voc,
        "detection",
        lambda root: [
            webp_on_its_side(root),
            (root / "JPEGImages" / "val_1.webp").rename(root / "JPEGImages" / "val_1.jpg"),
        ],
        "turned by its EXIF",
    ),
    "class names in another code": (
        make_voc,
        "segmentation",
        lambda root: (root / "classes.txt").write_bytes("hintergrund\ndüse".encode("latin-1")),
        "classes.txt is no UTF-8 text",
    ),
    "masks of one bit": (make_mask_folders, "segmentation", one_bit, "has the mode 1"),
    "a class with braces": (
        make_voc,
        "detection",
        lambda root: [
            replace_in(path, "disc", "{{ disc }}") for path in (root / "Annotations").iterdir()
        ],
        "has the class '{{ disc }}'",
    ),
    "instance task on VOC": (make_voc, "instance", lambda root: None, "no layout known"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_named(tmp_path, case):
    make, task, spoil, message = BAD_DATA[case]
    root = make(tmp_path / "set")
    spoil(root)
    with pytest.raises(UserError) as error:
        read_data(root, task, tmp_path / "lists")
    assert message in error.value.problem and error.value.remedy


def test_names_with_spaces_and_boxes_of_one_pixel(tmp_path):
    root = make_voc(tmp_path / "set")
    for folder, end in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (root / folder / f"val_1.{end}").rename(root / folder / f"a name.{end}")
    replace_in(root / "ImageSets" / "Main" / "val.txt", "val_1", "a name")
    replace_in(root / "ImageSets" / "Main" / "val.txt", "val_2", "val_2  1")  # as in VOC's lists
    xml = root / "Annotations" / "a name.xml"
    xml.write_text(re.sub(r"<(x|y)(min|max)>\d+", r"<\1\2>7", xml.read_text()))
    data = read_data(root, "detection", tmp_path / "lists")
    entries = json.loads(Path(data.val["ann_file"]).read_text())
    assert [entry["img_id"] for entry in entries[1:3]] == ["a name", "val_2"]
    assert entries[1]["instances"][0]["bbox"] == [6, 6, 7, 7]


def test_names_in_lists_may_have_a_suffix(tmp_path):
    root = make_voc(tmp_path / "set")
    replace_in(root / "ImageSets" / "Main" / "val.txt", "val_1", "val_1.jpg")
    replace_in(root / "ImageSets" / "Main" / "val.txt", "val_2", "JPEGImages/val_2.jpg 1")
    entries = json.loads(
        Path(read_data(root, "detection", tmp_path / "lists").val["ann_file"]).read_text()
    )
    assert [entry["img_id"] for entry in entries] == [f"val_{number}" for number in range(4)]


def test_names_with_dots_are_whole(tmp_path):
    """Only what ends as an image does has a suffix."""
    root = make_voc(tmp_path / "set")
    replace_in(root / "ImageSets" / "Main" / "val.txt", "val_1", "val_1.left")
    with pytest.raises(UserError, match="no image 'val_1.left'"):
        read_data(root, "detection", tmp_path / "lists")


def test_polygons_are_masks_and_flat_boxes_are_counted(tmp_path):
    root = make_coco(tmp_path / "set")
    coco_change("val", lambda c: c[A][0].update(segmentation=[[1, 1, 9, 1, 9, 9.5]]))(root)
    coco_change("val", lambda c: c[A][1].update(area=0))(root)
    note = read_data(root, "instance", tmp_path / "lists").metric_note
    assert note.endswith("; 1 objects without an area count as missed")


def test_lists_of_other_labels_stay(tmp_path):
    """Finished jobs point to them, also when a comparison of other data is refused."""
    root = make_voc(tmp_path / "set")
    first = read_data(root, "segmentation", tmp_path / "lists").train["ann_file"]
    before = Path(first).read_text()
    corrected_mask(root)
    assert read_data(root, "segmentation", tmp_path / "lists").train["ann_file"] != first
    assert Path(first).read_text() == before


def test_classes_by_index_need_no_name_of_the_others(tmp_path):
    root = make_mask_folders(tmp_path / "set")
    (root / "classes.txt").write_bytes(b"\xef\xbb\xbfnothing\n")  # of Windows, and too few
    with pytest.raises(UserError, match="names 1 classes, but the masks use index 2"):
        read_data(root, "segmentation", tmp_path / "lists")
    wanted = ["0=background", "2=square"]
    data = read_data(root, "segmentation", tmp_path / "lists", wanted)
    assert data.classes == ["background", "square"]
    assert data.metric_note.endswith("not asked for and ignored: class 1")
    for twice in (["0=a", "2=a"], ["0=a", "0=b"]):
        with pytest.raises(UserError, match="is there twice"):
            read_data(root, "segmentation", tmp_path / "lists", twice)


def test_one_mask_class_alone_is_refused(tmp_path):
    root = make_mask_folders(tmp_path / "set")
    with pytest.raises(UserError, match="fewer than two classes.*\n.*background as well"):
        read_data(root, "segmentation", tmp_path / "lists", ["class 1"])


def test_missing_empty_and_unknown_folders(tmp_path):
    for spoil, message in (
        (lambda p: None, "does not exist"),
        (lambda p: p.mkdir(), "is empty"),
        (lambda p: (p / "stuff").mkdir(), "no layout known"),
    ):
        spoil(tmp_path / "set")
        with pytest.raises(UserError, match=message):
            read_data(tmp_path / "set", "detection", tmp_path / "lists")


def test_a_class_that_is_not_there_gets_a_suggestion(tmp_path):
    with pytest.raises(UserError, match="no class 'sqare'.*'square'"):
        read_data(make_voc(tmp_path / "set"), "detection", tmp_path / "lists", ["sqare"])
