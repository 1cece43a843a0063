"""The rendered data set: exact, its labels those of the scenes, and the same every time."""

import hashlib
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densessl.demo.painting import CLASSES, paint_scene
from densessl.demo.scenes import render_scenes
from densessl.errors import UserError

COUNTS = {"unlabelled": 6, "train": 24, "val": 8}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return render_scenes(tmp_path_factory.mktemp("scenes") / "data", **COUNTS, size=96, seed=3)


def _objects(root: Path, name: str) -> list[tuple[str, tuple[int, ...]]]:
    tree = ElementTree.parse(root / "Annotations" / f"{name}.xml").getroot()
    return [
        (
            node.findtext("name"),
            tuple(int(node.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")),
        )
        for node in tree.findall("object")
    ]


def _digest(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_layout_holds_every_file_of_the_splits_and_nothing_else(scenes):
    for split in ("train", "val"):
        names = (scenes / "ImageSets/Main" / f"{split}.txt").read_text().split()
        assert len(names) == COUNTS[split]
        assert names == (scenes / "ImageSets/Segmentation" / f"{split}.txt").read_text().split()
    for folder, count in (
        ("JPEGImages", 32),
        ("Annotations", 32),
        ("SegmentationClass", 32),
        ("unlabelled", 6),
    ):
        assert len(list((scenes / folder).iterdir())) == count
    assert (scenes / "labels.txt").read_text().split() == ["background", *CLASSES]


@pytest.mark.parametrize("split", ["train", "val"])
def test_boxes_and_masks_are_those_of_the_scene(scenes, split):
    stream = ("train", "val").index(split)
    names = (scenes / "ImageSets/Main" / f"{split}.txt").read_text().split()
    for index, name in enumerate(names):
        scene = paint_scene(np.random.default_rng([3, stream, index]), 96)
        segmentation = np.asarray(Image.open(scenes / "SegmentationClass" / f"{name}.png"))
        voc = _objects(scenes, name)
        assert 1 <= len(scene.labels) == len(voc) <= 4
        for number, (label, box) in enumerate(voc):
            mask = scene.ids == number + 1
            rows, cols = np.nonzero(mask)
            assert box == (cols.min() + 1, rows.min() + 1, cols.max() + 1, rows.max() + 1)
            assert label == CLASSES[scene.labels[number]]
            assert set(np.unique(segmentation[mask])) <= {scene.labels[number] + 1, 255}
        assert set(np.unique(segmentation[scene.ids == 0])) <= {0, 255}


def test_void_is_the_one_pixel_behind_the_front_object(scenes):
    for index in range(4):
        classes = np.asarray(Image.open(scenes / f"SegmentationClass/{index + 1:06d}.png"))
        scene = paint_scene(np.random.default_rng([3, 0, index]), 96)
        for row in range(96):
            for col in range(96):
                own = scene.ids[row, col]
                around = [(row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)]
                inside = [(r, c) for r, c in around if 0 <= r < 96 and 0 <= c < 96]
                if any(scene.ids[place] > own for place in inside):
                    assert classes[row, col] == 255
                else:
                    assert classes[row, col] == (scene.labels[own - 1] + 1 if own else 0)


def test_segmentation_has_the_voc_palette(scenes):
    image = Image.open(scenes / "SegmentationClass/000001.png")
    palette = np.array(image.getpalette()).reshape(-1, 3)
    assert image.mode == "P"
    # aeroplane, bicycle, bird, boat and void of the VOC devkit
    assert palette[[0, 1, 2, 3, 4]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [0, 0, 128],
    ]
    assert palette[255].tolist() == [224, 224, 192]


def test_xml_has_the_voc_schema(scenes):
    for path in (scenes / "Annotations").iterdir():
        tree = ElementTree.parse(path).getroot()
        assert [n.tag for n in tree][:5] == ["folder", "filename", "source", "size", "segmented"]
        assert (scenes / "JPEGImages" / tree.findtext("filename")).is_file()
        assert [tree.findtext(f"size/{key}") for key in ("width", "height", "depth")] == [
            "96",
            "96",
            "3",
        ]
        for node in tree.findall("object"):
            assert [n.tag for n in node] == [
                "name",
                "pose",
                "truncated",
                "occluded",
                "difficult",
                "bndbox",
            ]
            assert {node.findtext("truncated"), node.findtext("difficult")} <= {"0", "1"}


def test_every_class_occurs_in_train_and_val_masks():
    for stream in (0, 1):
        seen = set()
        for index in range(40):
            scene = paint_scene(np.random.default_rng([0, stream, index]), 64)
            assert set(np.unique(scene.ids)) == set(range(len(scene.labels) + 1))
            seen |= set(scene.labels)
        assert seen == set(range(len(CLASSES)))


def test_same_seed_gives_the_same_bytes_and_another_seed_other_images(scenes, tmp_path):
    again = render_scenes(tmp_path / "again", **COUNTS, size=96, seed=3)
    assert _digest(again) == _digest(scenes)
    other = render_scenes(tmp_path / "other", unlabelled=0, train=1, val=0, size=96, seed=4)
    assert _digest(other)["JPEGImages/000001.jpg"] != _digest(scenes)["JPEGImages/000001.jpg"]


def test_images_do_not_depend_on_the_counts_and_no_two_are_equal(scenes, tmp_path):
    fewer = render_scenes(tmp_path / "fewer", unlabelled=2, train=1, val=0, size=96, seed=3)
    whole = _digest(scenes)
    for name in ("unlabelled/u000001.jpg", "unlabelled/u000002.jpg", "JPEGImages/000001.jpg"):
        assert _digest(fewer)[name] == whole[name]
    photos = [digest for name, digest in whole.items() if name.endswith(".jpg")]
    assert len(set(photos)) == len(photos) == 38


def test_second_call_returns_at_once_and_other_parameters_are_refused(scenes):
    before = {p: p.stat().st_mtime_ns for p in scenes.rglob("*")}
    calls = []
    assert (
        render_scenes(scenes, **COUNTS, size=96, seed=3, progress=lambda *a: calls.append(a))
        == scenes
    )
    assert not calls
    with pytest.raises(UserError, match="other parameters"):
        render_scenes(scenes, **COUNTS, size=96, seed=5)
    assert {p: p.stat().st_mtime_ns for p in scenes.rglob("*")} == before


def test_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/photo.txt").write_text("mine")
    with pytest.raises(UserError, match="does not hold rendered scenes"):
        render_scenes(tmp_path / "mine", unlabelled=1, train=0, val=0)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["photo.txt"]
    (tmp_path / "new.partial").mkdir()
    with pytest.raises(UserError, match="in the way"):
        render_scenes(tmp_path / "new", unlabelled=1, train=0, val=0)


def test_a_stopped_run_leaves_no_folder_and_is_replaced_by_the_next(tmp_path):
    def stop(done: int, total: int) -> None:
        assert total == 4
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_scenes(tmp_path / "data", unlabelled=2, train=1, val=1, size=48, progress=stop)
    assert not (tmp_path / "data").exists()
    out = render_scenes(tmp_path / "data", unlabelled=2, train=1, val=1, size=48)
    assert json.loads((out / "scenes.json").read_text())["train"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


@pytest.mark.parametrize(
    "bad", [{"size": 8}, {"train": -1}, {"unlabelled": 0, "train": 0, "val": 0}]
)
def test_out_of_range_parameters_are_named(tmp_path, bad):
    with pytest.raises(UserError, match="Cannot render"):
        render_scenes(tmp_path / "data", **bad)
    assert not list(tmp_path.iterdir())
