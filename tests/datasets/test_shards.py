"""Tar shards give what the folder gives, and resume as it does."""

import errno
import importlib.util
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from densessl.checkpoint import load_checkpoint
from densessl.datasets import ImageFolder, TarShards, ViewSampler, collate_views
from densessl.datasets.shards import make_index, write_shards
from densessl.engine import pretrain
from densessl.engine.config import load_config, use_images
from densessl.errors import UserError
from densessl.structures import SampleKey
from densessl.transforms import MultiView
from densessl.transforms.decode import ImageError
from tests.training import REPO, write_config, write_images

VIEWS = MultiView(["moco_v2", "byol_2"], size=16)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Sixteen images in a folder and folders below, and a file that is none."""
    folder = write_images(tmp_path_factory.mktemp("data") / "images", 16)
    (folder / "below").mkdir()
    for number in range(0, 16, 3):
        os.rename(folder / f"{number:03}.jpg", folder / "below" / f"{number:03}.jpg")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def shards(images):
    out = images.parent / "shards"
    assert [path.name for path in write_shards(images, out, per_shard=6)] == [
        f"shard-{number:06}.tar" for number in range(3)
    ]
    return out


def same(one, two):
    """Two batches as the loader gives them."""
    assert one.places == two.places
    tensors = ((*batch.views, batch.numbers, batch.keys) for batch in (one, two))
    return all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))


def test_the_bytes_and_the_views_are_those_of_the_folder(images, shards):
    folder, tars = ImageFolder(str(images), VIEWS), TarShards(str(shards), VIEWS)
    assert len(tars) == 16 and tars.metainfo == folder.metainfo
    for index in range(16):
        assert tars.read(index) == folder.read(index)
        one, other = (collate_views([data[SampleKey(3, 1, index)]]) for data in (tars, folder))
        assert same(one, other)
    assert tars.check() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_and_workers_see_the_same_batches(images, shards, monkeypatch, workers):
    monkeypatch.setattr("densessl.datasets.sampler.get_dist_info", lambda: (1, 2))
    batches = []
    for kind, root in ((ImageFolder, images), (TarShards, shards)):
        dataset = kind(str(root), VIEWS)
        sampler = ViewSampler(dataset, seed=5)
        sampler.start = 2
        batches.append(
            list(
                DataLoader(
                    dataset, 3, sampler=sampler, num_workers=workers, collate_fn=collate_views
                )
            )
        )
    assert len(batches[0]) == 2
    assert all(same(one, two) for one, two in zip(*batches, strict=True))


def test_an_index_is_made_used_and_made_again(images, tmp_path):
    (shard,) = write_shards(images, tmp_path / "out")
    beside = shard.with_name("shard-000000.tar.idx")
    beside.unlink()
    assert len(TarShards(str(shard.parent), VIEWS)) == 16 and beside.exists()
    index = json.loads(beside.read_text())
    beside.write_text(json.dumps(dict(index, names=[f"x{name}" for name in index["names"]])))
    assert TarShards(str(shard.parent), VIEWS).files[0].startswith("x")  # it is the index we read
    with tarfile.open(shard, "w") as tar:
        tar.add(images / "001.jpg", "new.jpg")
        tar.add(images / "notes.txt", "notes.txt")
    assert [*TarShards(str(shard.parent), VIEWS).files] == ["new.jpg"]
    beside.write_text("no json")
    assert [*TarShards(str(shard.parent), VIEWS).files] == ["new.jpg"]
    size = shard.stat().st_size
    with tarfile.open(shard, "w") as tar:  # tar fills up to whole blocks: often the same size
        tar.add(images / "002.jpg", "newer.jpg")
    assert shard.stat().st_size == size
    os.utime(beside, ns=(0, shard.stat().st_mtime_ns - 1))
    assert [*TarShards(str(shard.parent), VIEWS).files] == ["newer.jpg"]


def test_shards_that_changed_places_get_new_indices(images, tmp_path):
    """``mv`` keeps their ages, and tar fills both up to the same size."""
    first, second = write_shards(images, tmp_path / "out", per_shard=8)
    dataset = TarShards(str(first.parent), VIEWS)
    before = {dataset.files[index]: dataset.read(index) for index in range(16)}
    assert first.stat().st_size == second.stat().st_size
    first.rename(tmp_path / "aside")
    second.rename(first), (tmp_path / "aside").rename(second)
    dataset = TarShards(str(first.parent), VIEWS)
    assert {dataset.files[index]: dataset.read(index) for index in range(16)} == before


def test_shards_are_found_as_images_are(images, tmp_path):
    """Links are followed, what begins with a dot is left out, in the shards too."""
    write_shards(images, tmp_path / "far")
    root = tmp_path / "root"
    (root / ".trash").mkdir(parents=True)
    (root / "linked").symlink_to(tmp_path / "far")
    write_shards(images, root / ".trash" / "old")
    (root / "._mac.tar").write_bytes(b"notes")
    (root / "folder.tar").mkdir()
    with tarfile.open(root / "plain.tar", "w") as tar:
        tar.add(images / "001.jpg", "./.thumbs/001.jpg")
        tar.add(images / "002.jpg", "./002.jpg")
    dataset = TarShards(str(root), VIEWS)
    assert [Path(shard).relative_to(root).as_posix() for shard in dataset.shards] == [
        "linked/shard-000000.tar",
        "plain.tar",
    ]
    assert len(dataset) == 16 + 1 and dataset.files[16] == "./002.jpg"
    cfg = load_config(write_config(tmp_path / "config.py", images))
    use_images(cfg, root)
    assert cfg.train_dataloader.dataset.type == "TarShards"


def test_a_shard_that_was_not_copied_is_missed(images, tmp_path):
    shards = write_shards(images, tmp_path / "out", per_shard=6)
    assert len(TarShards(str(tmp_path / "out"), VIEWS)) == 16
    shards[1].unlink()
    with pytest.raises(UserError, match="2 shards are in .*says '3'"):
        TarShards(str(tmp_path / "out"), VIEWS)


def test_broken_shards_are_named(images, tmp_path):
    out = tmp_path / "out"
    (shard,) = write_shards(images, out)
    dataset = TarShards(str(out), VIEWS)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:4000])
    with pytest.raises(ImageError, match="ends before the image does"):
        dataset.read(15)
    with pytest.raises(UserError, match="cut short|cannot be read as an uncompressed tar"):
        TarShards(str(out), VIEWS)
    shard.write_bytes(b"\x1f\x8b" + whole)
    with pytest.raises(UserError, match="shard-000000.tar cannot be read as an uncompressed tar"):
        TarShards(str(out), VIEWS)
    shard.unlink()
    with pytest.raises(UserError, match="0 shards are in .*says '1'"):
        TarShards(str(out), VIEWS)
    (out / "shards.count").write_bytes(b"\xff?")
    with pytest.raises(UserError, match="0 shards are in .*says"):
        TarShards(str(out), VIEWS)
    (out / "shards.count").unlink()
    with pytest.raises(UserError, match="There is no .tar file in"):
        TarShards(str(out), VIEWS)
    with pytest.raises(ImageError, match="No such file"):
        dataset.read(0)
    assert dataset.path(0) == f"{shard}/{dataset.files[0]}"


@pytest.mark.parametrize("damage", ["cut before a header", "cut in a header", "bad header"])
def test_a_shard_that_ends_early_is_not_taken_for_a_short_one(images, tmp_path, damage):
    (shard,) = write_shards(images, tmp_path / "out")
    whole = shard.read_bytes()
    header = make_index(shard)["offsets"][3] - 512
    cut = dict(zip(("cut before a header", "cut in a header"), (header, header + 100), strict=True))
    spoiled = whole[:header] + b"\xff" * 512 + whole[header + 512 :]
    shard.write_bytes(whole[: cut[damage]] if damage in cut else spoiled)
    with pytest.raises(UserError, match="cut short or damaged"):
        make_index(shard)


def test_links_in_a_shard_are_named(images, tmp_path):
    (images / "link.jpg").symlink_to(images / "001.jpg")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(images, ".")
    with pytest.raises(UserError, match="links in the place of 1 images, such as ./link.jpg"):
        make_index(tmp_path / "a.tar")
    (images / "link.jpg").unlink()


def test_a_shard_that_tar_made_holds_what_the_folder_does(images, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    os.link(folder / "001.jpg", folder / "twin.jpg")  # in the tar file a hard link
    (folder / "._001.jpg").write_bytes(b"a Mac's notes about 001.jpg")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(folder, ".")
    inside, outside = TarShards(str(tmp_path), VIEWS), ImageFolder(str(folder), VIEWS)
    names = [name.removeprefix("./") for name in inside.files]
    assert sorted(names) == [*outside.files] and "twin.jpg" in names
    for index, name in enumerate(names):
        assert inside.read(index) == (folder / name).read_bytes()


def test_images_beside_a_tar_file_are_what_is_trained_on(images, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(images, folder)
    with tarfile.open(folder / "annotations.tar", "w"):
        pass
    cfg = load_config(write_config(tmp_path / "config.py", images))
    for root, kind in ((folder, "ImageFolder"), (tmp_path / "below", "TarShards")):
        if kind == "TarShards":
            write_shards(images, root / "deeper")
        use_images(cfg, root)
        assert cfg.train_dataloader.dataset.type == kind


def test_a_full_disk_leaves_whole_shards_and_says_so(images, tmp_path, monkeypatch):
    add = tarfile.TarFile.addfile

    def add_until_full(tar, entry, file):
        if tar.name.endswith("shard-000002.part"):
            raise OSError(errno.ENOSPC, "No space left on device")
        add(tar, entry, file)

    monkeypatch.setattr(tarfile.TarFile, "addfile", add_until_full)
    out = tmp_path / "out"
    with pytest.raises(UserError) as caught:
        write_shards(images, out, per_shard=6)
    assert caught.value.problem == (
        f"{out / 'shard-000002.tar'} could not be written: No space left on device. "
        f"Whole shards that remain in {out}: 2."
    )
    assert "remove the shards" in caught.value.remedy
    assert {path.name for path in out.iterdir()} == {
        f"shard-00000{number}.tar{end}" for number in (0, 1) for end in ("", ".idx")
    } | {"shards.unfinished"}
    with pytest.raises(UserError, match="are not all: tools/shard.py was stopped there"):
        TarShards(out, lambda data, key: None)
    with pytest.raises(UserError, match="already, of a run that was stopped"):
        write_shards(images, out)


def test_an_image_that_cannot_be_read_is_named(images, tmp_path, monkeypatch):
    names = ["none.jpg"]
    monkeypatch.setattr("densessl.datasets.shards.walk_images", lambda root: names)
    with pytest.raises(UserError, match=r"No such file or directory \(.*none.jpg\)\. .*: 0\."):
        write_shards(images, tmp_path / "out")


def test_the_tool_writes_them_and_says_what_is_wrong(images, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("shard_tool", REPO / "tools/shard.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    argv = [str(images), str(tmp_path / "out"), "--images-per-shard", "10"]
    assert tool.main(argv) == 0
    assert f"2 shards in {tmp_path / 'out'}. To train on them: --images" in capsys.readouterr().out
    assert tool.main(argv) == 2
    assert "holds .tar files already" in capsys.readouterr().err
    assert tool.main([str(images / "none"), str(tmp_path / "other")]) == 2
    assert "does not exist" in capsys.readouterr().err
    below_a_file = next(images.rglob("*.jpg")) / "out"
    assert tool.main([str(images), str(below_a_file)]) == 2
    assert "cannot be made: Not a directory" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_on_a_folder_goes_on_on_its_shards(images, shards, tmp_path):
    config = write_config(tmp_path / "config.py", images)
    options = {"train_cfg.max_epochs": 1, "precision": "fp32"}
    whole = pretrain(config, work_dir=tmp_path / "whole", **options)
    pretrain(config, work_dir=tmp_path / "run", **options, **{"train_cfg.max_steps": 2})
    resumed = pretrain(config, shards, work_dir=tmp_path / "run", resume=True, **options)
    one, two = (load_checkpoint(path)["state_dict"] for path in (whole, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)
