"""What each measure buys, and that the plain ways give the same as ours."""

import copy
import io
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from densessl.benchmark import benchmark_measures, recipe
from densessl.benchmark.plain import (
    DECODERS,
    color_with_torchvision,
    crop_with_pillow,
    decode_for_each_view,
    decode_whole,
    follow_one_by_one,
    norms_by_pytorch,
    shuffle_by_gathering,
)
from densessl.benchmark.variants import of_whole_steps
from densessl.datasets import collate_views
from densessl.models import ResNet
from densessl.models.backbones.norm_act import library
from densessl.models.distributed import BatchShuffle
from densessl.models.preprocessor import ViewPreprocessor
from densessl.models.teacher import Teacher
from densessl.structures import SampleKey, ViewBatch
from densessl.transforms.decode import read_image
from densessl.transforms.views import MultiView
from tests.training import write_config, write_images

CPU = torch.device("cpu")


def jpeg(width: int, height: int) -> bytes:
    """A smooth picture: scaling noise says little."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((width, height)).save(file, "jpeg")
    return file.getvalue()


@pytest.mark.slow
def test_measures(tmp_path):
    config = write_config(tmp_path / "config.py", write_images(tmp_path / "images", 16))
    result = benchmark_measures(recipe(config), CPU, 99, 2)
    assert {"one_decode", "decode_scale", "crops", "colour", "channels_last"} <= result.keys()
    assert {"kept_memory", "attention_kernel", "decoder_not_pillow", "shards"} <= result.keys()
    sent = result["shuffle"]["sent_mb"]
    assert sent["without"] == 4 * 3 * 32 * 32 * 4 / 2**20 and sent["with"] == sent["without"] / 8
    for measure in result.values():
        times = {name: value["median"] for name, value in measure["seconds"].items()}
        assert measure["gain"] == times["without"] / times["with"]


def test_other_recipes_are_compared_with_the_plain_step(tmp_path, monkeypatch):
    """Seconds made up from each recipe: pixels, half as much again with ``with_cp``."""

    def made_up(works, rounds, device):
        costs = {}
        for name, (_, cfg) in works.items():
            checkpointed = cfg.model.backbone.get("with_cp", False)
            pixels = cfg.train_dataloader.dataset.transform.size**2
            costs[name] = [(pixels * (1.5 if checkpointed else 1.0), 100.0 - checkpointed)] * rounds
        return costs

    monkeypatch.setattr("densessl.benchmark.variants.cost_of_steps", made_up)
    cfg = recipe(write_config(tmp_path / "config.py", write_images(tmp_path / "images", 16)))
    cfg.model.backbone = dict(type="ResNet", depth=18)
    cfg.train_dataloader.dataset.transform.size = 224
    result = of_whole_steps(cfg, CPU, 2)
    assert result["kept_memory"]["gain"] == 1
    assert result["with_cp"]["gain"] == 1 / 1.5
    assert result["with_cp"]["peak_mb"] == {"with": 99, "without": 100}
    mean = 0.3 * 160**2 + 0.3 * 192**2 + 0.4 * 224**2
    assert result["small_views_first"]["gain"] == pytest.approx(224**2 / mean)


@pytest.mark.parametrize("name", DECODERS)
def test_other_decoders_give_the_same_pixels(name):
    file = jpeg(301, 200)
    pixels = DECODERS[name](file)
    assert pixels.shape == (200, 301, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - read_image(file)).mean() < 1


@pytest.mark.slow
def test_gathering_gives_the_same_shuffled_views(tmp_path):
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        assert list(pool.map(partial(shuffled_both_ways, str(tmp_path)), range(2))) == [True] * 2


def shuffled_both_ways(folder: str, rank: int) -> bool:
    meeting = f"file://{folder}/meet"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    views = torch.arange(6) + 10 * rank
    (ours,) = BatchShuffle(6, seed=3).shuffle(views)
    same = torch.equal(ours, shuffle_by_gathering(views, seed=3))
    torch.distributed.destroy_process_group()
    return same


def test_the_plain_ways_of_the_worker_give_the_same_views():
    transform = MultiView(["moco_v2", "moco_v2"], size=64)
    file, key = jpeg(300, 200), SampleKey(0, 0, 0)
    views, _ = transform(file, key)
    assert transform.plan(file, key).scale == 1
    for make in (decode_for_each_view, decode_whole):
        for view, same in zip(views, make(transform, file, key), strict=True):
            assert torch.equal(view, same)
    for view, near in zip(views, crop_with_pillow(transform, file, key), strict=True):
        assert (view.int() - near.int()).abs().max() <= 1


@pytest.mark.skipif(library() is None, reason="needs a CPU with bf16, and a compiler")
def test_norms_by_pytorch_leave_the_kernel_alone():
    nets = []
    for plain in (False, True):
        torch.manual_seed(0)
        nets.append(ResNet(18).to(memory_format=torch.channels_last))
        if plain:
            norms_by_pytorch(nets[1])
    x = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        ours, pytorchs = (type(net(x)[0].grad_fn).__name__ for net in nets)
    assert ours == "_NormActBackward" and pytorchs.startswith("ReluBackward")


def test_torchvision_gives_the_same_colours():
    transform = MultiView(["byol_1", "byol_2"], size=32)
    keys = [SampleKey(0, 0, index) for index in range(16)]
    file = jpeg(48, 40)
    samples = [ViewBatch(*transform(file, key), key.index, -1) for key in keys]
    batch = collate_views(samples).unpack()
    preprocessor = ViewPreprocessor()
    ours = preprocessor(batch, True)["batch"].views
    theirs = color_with_torchvision(batch, preprocessor.mean.tolist(), preprocessor.std.tolist())
    for view, same in zip(ours, theirs, strict=True):
        torch.testing.assert_close(view, same, atol=1e-4, rtol=0)


def test_following_one_by_one_is_the_teachers_update():
    torch.manual_seed(0)
    student = nn.Module()
    student.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    student.teacher = Teacher(0.9, backbone=student.backbone)
    for parameter in student.backbone.parameters():
        parameter.data.normal_()
    twin = copy.deepcopy(student)
    student.teacher.update(student)
    follow_one_by_one(twin)
    for one, other in zip(student.teacher.parameters(), twin.teacher.parameters(), strict=True):
        torch.testing.assert_close(one, other)
