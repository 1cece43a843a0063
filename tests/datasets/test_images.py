import json
import os
import random

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from PIL import Image
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from densessl.datasets import (
    CocoImages,
    FileList,
    ImageFolder,
    ImageNet,
    ViewSampler,
    VOCImages,
    collate_views,
)
from densessl.datasets.images import above_share
from densessl.datasets.names import Names
from densessl.errors import UserError
from densessl.structures import SampleKey, ViewBatch
from densessl.transforms import MultiView


@pytest.fixture
def folder(tmp_path):
    """Twelve noisy pictures of many formats and sizes, some in folders below."""
    rng = np.random.default_rng(0)
    kinds = ["jpg", "png", "webp", "bmp", "tiff", "JPEG"]
    for number in range(12):
        place = tmp_path / "photos" / ("" if number % 2 else f"deep/{number}")
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (40 + number, 70 - number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number:02d}.{kinds[number % 6]}")
    return tmp_path / "photos"


def two_views(size=16):
    return MultiView(views=["moco_v2", "byol_2"], size=size)


def epoch_of(dataset, workers, epoch=0, seed=3, start=0, batch=4):
    sampler = ViewSampler(dataset, seed)
    sampler.set_epoch(epoch)
    sampler.start = start
    loader = DataLoader(
        dataset, batch, sampler=sampler, num_workers=workers, collate_fn=collate_views
    )
    return list(loader)


def same(one, two):
    """Whether two lists of batches as the loader gives them are equal."""
    leaves = zip(tree_leaves(one), tree_leaves(two), strict=True)
    return all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in leaves)


def test_masks_among_the_images_are_warned_of(tmp_path):
    for name in ("photos/a.jpg", "photos/b.jpeg", "photos/b.png", "masks/a.png", "more/c.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 20)).save(path)
    (line,) = ImageFolder(tmp_path, two_views()).warnings()
    assert line.startswith("1 of the 5 images may be masks") and "masks/a.png" in line
    assert ImageFolder(tmp_path / "photos", two_views()).warnings() == []


def test_a_bare_number_is_no_sample(folder):
    images = ImageFolder(str(folder), MultiView(["moco_v2"], 16))
    with pytest.raises(TypeError, match="ViewSampler yields them"):
        images[0]


def test_a_batch_has_the_declared_shapes_and_types(folder):
    batch = epoch_of(ImageFolder(folder, two_views()), workers=0)[0].unpack()
    assert isinstance(batch, ViewBatch)
    assert [tuple(v.shape) for v in batch.views] == [(4, 16, 16, 3)] * 2
    assert all(v.dtype == torch.uint8 for v in batch.views)
    record = batch.records[1]
    shapes = {name: tuple(value.shape) for name, value in record._asdict().items()}
    assert shapes == dict(
        box=(4, 4), flip=(4,), source_size=(4, 2), jitter=(4, 4), jitter_order=(4, 4),
        gray=(4,), blur_sigma=(4,), solarize=(4,),
    )  # fmt: skip
    assert record.flip.dtype == torch.bool and record.box.dtype == torch.float32


def test_a_batch_holds_the_numbers_of_its_samples(folder):
    dataset = ImageFolder(folder, two_views())
    samples = [dataset[SampleKey(0, 0, index)] for index in (2, 0, 3)]
    batch = collate_views(samples).unpack()
    assert batch.index.tolist() == [2, 0, 3] and batch.broken.tolist() == [-1] * 3
    for place, sample in enumerate(samples):
        for view, own in zip(batch.views, sample.views, strict=True):
            assert torch.equal(view[place], own)
        for record, own in zip(batch.records, sample.records, strict=True):
            for field, value in zip(record, own, strict=True):
                torch.testing.assert_close(field[place], torch.tensor(value).to(field))


def test_the_same_seed_gives_the_same_views_for_any_number_of_workers(folder):
    dataset = ImageFolder(folder, two_views())
    alone = epoch_of(dataset, workers=0, epoch=2)
    for workers in (1, 4):
        random.seed(workers)
        torch.manual_seed(workers)
        assert same(alone, epoch_of(dataset, workers=workers, epoch=2))
    assert not same(alone, epoch_of(dataset, workers=0, epoch=3))
    assert not same(alone, epoch_of(dataset, workers=0, epoch=2, seed=4))


def test_each_seed_and_epoch_has_an_order_of_its_own(folder):
    dataset = ImageFolder(folder, two_views())
    orders = set()
    for seed in range(3):
        sampler = ViewSampler(dataset, seed)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            orders.add(tuple(key.index for key in sampler))
    assert len(orders) == 9


def test_an_epoch_can_be_entered_in_the_middle(folder):
    dataset = ImageFolder(folder, two_views())
    whole = epoch_of(dataset, workers=0)
    assert same(whole[1:], epoch_of(dataset, workers=2, start=4))
    sampler = ViewSampler(dataset, seed=3)
    sampler.start = 4
    assert [len(list(sampler)) for _ in range(2)] == [8, 12]  # once: the next epoch is whole


def test_ranks_share_an_epoch_without_overlap(folder, monkeypatch):
    dataset = ImageFolder(folder, two_views())
    seen = []
    for rank in range(3):
        monkeypatch.setattr("densessl.datasets.sampler.get_dist_info", lambda rank=rank: (rank, 3))
        sampler = ViewSampler(dataset, seed=1)
        keys = list(sampler)
        assert len(keys) == len(sampler) == 4
        seen += [key.index for key in keys]
    assert sorted(seen) == list(range(12))


def test_broken_images_are_replaced_and_reported(folder):
    victim = folder / "01.png"
    victim.write_bytes(victim.read_bytes()[:40])
    (folder / "03.bmp").write_bytes(b"")
    dataset = ImageFolder(folder, two_views(), max_broken=0.5)
    bad = {i for i in range(len(dataset)) if dataset.files[i] in ("01.png", "03.bmp")}
    batches = epoch_of(dataset, workers=0)
    broken = torch.cat([b.broken for b in batches])
    assert set(broken[broken >= 0].tolist()) == bad
    index = torch.cat([b.index for b in batches])  # of what was asked for, not of what stands in
    assert sorted(index.tolist()) == list(range(12)) and set(index[broken >= 0].tolist()) == bad
    assert same(batches, epoch_of(dataset, workers=2))
    problems = dataset.check()
    assert len(problems) == 2 and any("01.png" in line for line in problems)


def test_too_many_broken_images_stop_before_the_start(folder):
    for path in list(folder.rglob("*.*"))[:9]:
        path.write_text("not an image")
    with pytest.raises(UserError, match="9 of 12 images cannot be read"):
        ImageFolder(folder, two_views()).check()


def test_missing_and_empty_folders(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(UserError, match="did you mean 'pictures'"):
        ImageFolder(tmp_path / "picture", two_views())
    with pytest.raises(UserError, match="No images found"):
        ImageFolder(tmp_path / "pictures", two_views())
    (tmp_path / "file.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="not a folder"):
        ImageFolder(tmp_path / "file.jpg", two_views())


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 24), (90, 120, 30)).save(path)


def test_other_layouts(tmp_path):
    voc = tmp_path / "VOC2012"
    for name in ("2007_01", "2007_02", "2007_03"):
        picture(voc / "JPEGImages" / f"{name}.jpg")
    (voc / "ImageSets/Main").mkdir(parents=True)
    (voc / "ImageSets/Main/train.txt").write_text("2007_01\n2007_03 1\n")
    assert [*VOCImages(voc, transform=two_views()).files] == [
        f"JPEGImages/2007_0{i}.jpg" for i in (1, 2, 3)
    ]
    split = VOCImages(voc, split="train", transform=two_views())
    assert [*split.files] == ["JPEGImages/2007_01.jpg", "JPEGImages/2007_03.jpg"]
    lines = "2007_01  1\n2007_02 -1\n2007_03  0\n2007_09  1\n"  # of a class; the last is not there
    (voc / "ImageSets/Main/cat_train.txt").write_text(lines)
    split = VOCImages(voc, split="cat_train", transform=two_views(), max_broken=0.5)
    assert [*split.files] == [f"JPEGImages/2007_0{i}.jpg" for i in (1, 3, 9)]
    assert split.check() == [f"{voc}/JPEGImages/2007_09.jpg: No such file or directory"]

    images = [dict(id=2, file_name="b.jpg"), dict(id=1, file_name="a.jpg")]
    picture(tmp_path / "coco/a.jpg"), picture(tmp_path / "coco/b.jpg")
    (tmp_path / "instances.json").write_text(json.dumps(dict(images=images)))
    coco = CocoImages(tmp_path / "coco", tmp_path / "instances.json", transform=two_views())
    assert [*coco.files] == ["a.jpg", "b.jpg"] and len(coco[SampleKey(0, 0, 1)].views) == 2
    (tmp_path / "instances.json").write_text("[]")
    with pytest.raises(UserError, match="not a COCO annotation"):
        CocoImages(tmp_path / "coco", tmp_path / "instances.json", transform=two_views())

    picture(tmp_path / "in1k/train/n01440764/n01440764_18.JPEG")
    assert [*ImageNet(tmp_path / "in1k", transform=two_views()).files] == [
        "train/n01440764/n01440764_18.JPEG"
    ]

    (tmp_path / "list.txt").write_text("coco/a.jpg\n\ncoco/b.jpg\n")
    assert len(FileList(tmp_path / "list.txt", tmp_path, transform=two_views())) == 2
    (tmp_path / "list.txt").write_text("coco/a.jpg\n", encoding="utf-8-sig")
    marked = FileList(tmp_path / "list.txt", tmp_path, transform=two_views())
    assert [*marked.files] == ["coco/a.jpg"]
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.jpg\n")
    with pytest.raises(UserError, match="save it as UTF-8"):
        FileList(tmp_path / "list.txt", tmp_path, transform=two_views())
    (tmp_path / "list.txt").write_text("a\u2028b.jpg \r\n c.jpg", newline="")
    odd = FileList(tmp_path / "list.txt", tmp_path, transform=two_views())
    assert [*odd.files] == ["a\u2028b.jpg", " c.jpg"]


def test_an_empty_list_is_named_and_not_the_folder(tmp_path):
    picture(tmp_path / "JPEGImages/a.jpg")
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/none.txt").touch()
    (tmp_path / "none.json").write_text('{"images": []}')
    for kind, options, name in (
        (FileList, dict(list_file=tmp_path / "ImageSets/Main/none.txt"), "none.txt"),
        (VOCImages, dict(split="none"), "none.txt"),
        (CocoImages, dict(annotation=tmp_path / "none.json"), "none.json"),
    ):
        with pytest.raises(UserError, match=f"{name} names no image"):
            kind(root=tmp_path, transform=two_views(), **options)
    (tmp_path / "none.json").write_text('{"images": [{"file_name": null}]}')
    for listing in ("none.json", "JPEGImages"):
        with pytest.raises(UserError, match="is not a COCO annotation file"):
            CocoImages(tmp_path, tmp_path / listing, transform=two_views())


def test_the_list_of_images_has_a_fingerprint(folder):
    one = ImageFolder(folder, two_views()).metainfo
    assert one["count"] == 12 and len(one["sha256"]) == 64
    os.rename(folder / "01.png", folder / "0.png")
    other = ImageFolder(folder, two_views()).metainfo
    assert other["count"] == 12 and other["sha256"] != one["sha256"]


def test_names_that_are_no_text_are_read_and_counted(folder):
    odd = os.fsencode(folder) + b"/caf\xe9.png"
    os.rename(folder / "01.png", odd)
    dataset = ImageFolder(folder, two_views())
    index = next(i for i in range(12) if os.fsencode(dataset.path(i)) == odd)
    assert dataset[SampleKey(0, 0, index)].broken == -1
    assert dataset.metainfo["count"] == 12


def test_what_is_hidden_or_linked_twice_is_left_out(folder):
    (folder / ".cache").mkdir()
    picture(folder / ".cache" / "a.png"), picture(folder / "._b.png")
    (folder / "again").symlink_to(folder)
    (folder / "linked").symlink_to(folder.parent / "other")
    picture(folder.parent / "other" / "c.png")
    files = [*ImageFolder(folder, two_views()).files]
    assert len(files) == 13 and "linked/c.png" in files


def test_names_are_a_list_of_strings():
    names = ["a.jpg", "", "ü/b.png", "\udce9"]
    packed = Names(names)
    assert [*packed] == names and len(packed) == 4 and packed[-1] == "\udce9" and packed
    assert packed[:2] == names[:2]
    assert not Names([])
    with pytest.raises(IndexError):
        packed[4]


@pytest.mark.parametrize(
    "broken, seen, total, above",
    [
        (7, 64, 9999, False),
        (10, 64, 9999, True),
        (1, 64, 9999, False),
        (4, 64, 64, True),
        (3, 64, 64, False),
    ],
)
def test_a_share_is_judged_with_a_margin_until_all_is_seen(broken, seen, total, above):
    """Of 64 images 3.2 may be broken, and by chance 6.2 more."""
    assert above_share(0.05, broken, seen, total) == above


def test_data_sets_build_from_configs(folder):
    from densessl.registry import DATASETS

    with DefaultScope.overwrite_default_scope("densessl"):
        dataset = DATASETS.build(
            dict(
                type="ImageFolder",
                root=str(folder),
                transform=dict(type="MultiView", views=["moco_v1"], size=8),
            )
        )
    assert dataset[SampleKey(0, 0, 0)].views[0].shape == (8, 8, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_follow_each_other_without_end(folder, workers):
    """Whole batches of an epoch, then the next epoch's, from one iterator."""
    dataset = ImageFolder(str(folder), two_views())
    sampler = ViewSampler(dataset, seed=3)
    sampler.set_epoch(2)
    sampler.start = 5
    sampler.follow_on(5)
    loader = DataLoader(dataset, 5, sampler=sampler, num_workers=workers, collate_fn=collate_views)
    batches = iter(loader)
    found = [next(batches) for _ in range(5)]  # one of epoch 2, two each of 3 and 4
    expected = epoch_of(dataset, 0, epoch=2, start=5, batch=5)[:1]
    for epoch in (3, 4):
        expected += epoch_of(dataset, 0, epoch=epoch, batch=5)[:2]
    assert all(same(one, two) for one, two in zip(found, expected, strict=True))
    assert len(sampler) == 12


def test_a_folder_may_lie_below_the_users_home(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    dataset = ImageFolder("~/photos", two_views())
    assert len(dataset) == 12 and dataset.check() == []


def test_a_batch_travels_in_few_tensors_and_splits_like_what_is_in_it(folder):
    """Patches of one size, views of another: two groups, and the order stays."""
    views = [dict(preset="pirl", size=24, grid=2, patch=8), "moco_v2", "crop_flip"]
    dataset = ImageFolder(folder, MultiView(views=views, size=16))
    samples = [dataset[SampleKey(0, 0, index)] for index in range(4)]
    packed = collate_views(samples)
    assert [tuple(stack.shape) for stack in packed.views] == [(4, 4, 8, 8, 3), (4, 2, 16, 16, 3)]
    assert len(tree_leaves((packed.views, packed.numbers, packed.keys))) == 4
    whole = packed.unpack()
    for place, sample in enumerate(samples):
        for view, own in zip(whole.views, sample.views, strict=True):
            assert torch.equal(view[place], own)
    for part, same_part in zip(packed.chunk(2), whole.chunk(2), strict=True):
        assert same(part.unpack(), same_part)
    with pytest.raises(ValueError, match="a batch of 4 does not split into 3"):
        packed.chunk(3)
