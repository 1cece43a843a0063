"""Boxes and masks in COCO's json, and what is wrong with them."""

import json

import pytest

from densessl.errors import UserError
from densessl.labels import coco
from tests.labels.damage import turn
from tests.tiny_sets import make_coco


@pytest.mark.parametrize("masks", [False, True])
def test_finds_both_parts(tmp_path, masks):
    classes, train, val = coco.find(make_coco(tmp_path), None, masks)
    assert classes == ["disc", "square"]
    assert (len(train.content["images"]), len(val.content["images"])) == (8, 4)
    assert train.images == tmp_path / "train2017"


def change(split, how):
    def spoil(root):
        path = root / "annotations" / f"instances_{split}2017.json"
        content = json.loads(path.read_text())
        how(content)
        path.write_text(json.dumps(content))

    return spoil


def test_polygons_are_masks(tmp_path):
    root = make_coco(tmp_path)
    polygon = [[1, 1, 9, 1, 9, 9.5]]
    change("val", lambda c: c["annotations"][0].update(segmentation=polygon))(root)
    assert coco.find(root, None, masks=True)[2].annotations[0]["segmentation"] == polygon


@pytest.mark.parametrize("counts", [[9216], [10, 9206], [0, 9216], "PP9", "0PP9"])
def test_run_lengths_are_numbers_or_packed(tmp_path, counts):
    root = make_coco(tmp_path)
    the_third(segmentation=dict(counts=counts, size=[96, 96]))(root)
    assert coco.find(root, None, masks=True)


def in_both(how):
    def spoil(root):
        for split in ("train", "val"):
            change(split, how)(root)

    return spoil


def star_in_val(root):
    in_both(lambda c: c["categories"].append(dict(id=3, name="star")))(root)
    change("val", lambda c: c["annotations"][0].update(category_id=3))(root)


def annotations(split, **values):
    """Every annotation with these values."""
    return change(split, lambda c: [item.update(values) for item in c["annotations"]])


def the_third(**values):
    return change("val", lambda c: c["annotations"][2].update(values))


BAD = {
    "image missing": (
        lambda root: (root / "train2017" / "0.jpg").unlink(),
        "1 images of instances_train2017.json",
    ),
    "broken json": (
        lambda root: (root / "annotations" / "instances_val2017.json").write_text("{"),
        "instances_val2017.json cannot be read",
    ),
    "image on its side": (
        lambda root: turn(root / "val2017" / "2.jpg"),
        "The entry of 2.jpg in",
    ),
    "broken image": (
        lambda root: (root / "train2017" / "1.jpg").write_bytes(b"no image"),
        "1.jpg cannot be read",
    ),
    "no masks": (annotations("train", segmentation=[]), "boxes but no masks"),
    "class only in val": (star_in_val, "image shows: star"),
    "another order": (
        change("val", lambda c: c["categories"].reverse()),
        "do not have the same categories",
    ),
    "width in quotes": (
        change("train", lambda c: c["images"][0].update(width="96")),
        "is '0.jpg' of '96' x 96 pixels",
    ),
    "no name": (change("train", lambda c: c["categories"][0].update(name=7)), "has the name 7"),
    "one name": (
        in_both(lambda c: c["categories"].append(dict(id=3, name="disc"))),
        "several categories",
    ),
    "shares of the image": (annotations("train", bbox=[0.1, 0.1, 0.5, 0.5]), "can be learned from"),
    "no area": (annotations("val", area=0), "can be learned from"),
    "crowds to learn from": (annotations("train", iscrowd=1), "train2017.json can be learned from"),
    "crowds to judge on": (annotations("val", iscrowd=1), "val2017.json can be learned from"),
    "ids twice": (annotations("val", id=5), "share their id"),
    "categories of one id": (
        in_both(lambda c: c["categories"].append(dict(id=1, name="star"))),
        "Some entries of 'categories'",
    ),
    "no such image": (the_third(image_id=77), "belongs to image 77"),
    "no such category": (the_third(category_id=0), "has the category 0"),
    "area": (the_third(area=None), "has the area None"),
    "iscrowd": (the_third(iscrowd="no"), "has iscrowd 'no'"),
    "an id": (the_third(category_id=[1]), "has an id that is none"),
    "three numbers": (the_third(bbox=[1, 2, 3]), "has the bbox [1, 2, 3]"),
    "outside": (
        the_third(bbox=[200, 5, 9, 9]),
        "outside of their image: those with the id 3.",
    ),
    "two corners": (
        the_third(segmentation=[[1, 2, 3, 4]]),
        "a segmentation that is none: those with the id 3.",
    ),
    "no list of lists": (the_third(segmentation=[1, 2, 3, 4, 5, 6]), "segmentation that is none"),
    "no corner": (the_third(segmentation=[[]]), "segmentation that is none"),
    "code of another size": (
        the_third(segmentation=dict(counts=[9216], size=[96, 95])),
        "segmentation that is none",
    ),
    **{
        f"code {counts}": (
            the_third(segmentation=dict(counts=counts, size=[96, 96])),
            "segmentation that is none: those with the id 3.",
        )
        for counts in (
            [9215],
            [9217],
            [-1, 9217],
            [9216.0],
            ["9216"],
            "",
            "0",
            "0P",
            "nonsense",
            "é",
            9,
        )
    },
}


@pytest.mark.parametrize("case", BAD)
def test_bad_labels_are_named(tmp_path, case):
    """Those of masks where masks are asked for, all others without."""
    spoil, message = BAD[case]
    root = make_coco(tmp_path)
    spoil(root)
    with pytest.raises(UserError) as error:
        coco.find(root, None, masks="mask" in message or "segmentation" in message)
    assert message in error.value.problem and error.value.remedy
