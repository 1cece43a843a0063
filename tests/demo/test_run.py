"""The demo on a folder of the user's: what it checks and which images it pretrains on."""

import pytest

from densessl.demo.run import _pretraining_images, run_demo
from densessl.errors import UserError
from densessl.files import locked
from tests.tiny_sets import make_voc


def test_a_folder_without_masks_is_refused_before_anything_is_written(tmp_path):
    data = make_voc(tmp_path / "set")
    (data / "SegmentationClass").rename(data / "other")
    with pytest.raises(UserError, match="no layout known for segmentation"):
        run_demo(tmp_path / "out", data)
    assert not (tmp_path / "out").exists()


def test_images_to_evaluate_on_are_kept_out_and_the_rest_is_thinned_evenly(tmp_path):
    data = make_voc(tmp_path / "set", train=6, val=2)
    main = data / "ImageSets" / "Main"
    (main / "train.txt").rename(main / "trainval.txt")
    (main / "val.txt").rename(main / "test.txt")  # and segmentation keeps train.txt and val.txt
    (main / "test.txt").write_text("train_5\n")
    names = [f"JPEGImages/train_{i}.jpg" for i in range(5)]
    assert _pretraining_images(data, tmp_path, 99) == names
    assert _pretraining_images(data, tmp_path, 3) == names[::2]
    (data / "JPEGImages" / "Thumbs.db").write_bytes(b"")
    assert _pretraining_images(data, tmp_path, 99) == names


def test_a_file_is_no_folder_for_the_results(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="holds something else"):
        run_demo(tmp_path / "out", make_voc(tmp_path / "set"))


def test_one_demo_at_a_time_works_in_a_folder(tmp_path, monkeypatch):
    data = make_voc(tmp_path / "set")
    monkeypatch.setattr("densessl.demo.run._all_steps", lambda out, plan, data: out)
    assert run_demo(tmp_path / "out", data) == tmp_path / "out"
    with locked(tmp_path / "out", AssertionError()):
        with pytest.raises(UserError, match="Another demo works in"):
            run_demo(tmp_path / "out", data)
