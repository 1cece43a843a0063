"""Frozen backbones and what they are shown: input conventions, crops, stages, sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from densessl.errors import UserError
from densessl.evaluation import evaluate
from densessl.evaluation.data import Sample
from densessl.evaluation.features import (
    FrozenBackbone,
    centre_crop,
    evaluating,
    extract,
    load_frozen,
    whole_image,
)
from densessl.models import build_backbone
from densessl.models.preprocessor import LAB_MEAN, LAB_STD
from densessl.transforms.lab import rgb_to_lab
from tests.evaluation.nets import Colours


def test_input_is_what_the_checkpoint_says():
    pixels = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    mean, std = [10.0, 20.0, 30.0], [2.0, 3.0, 4.0]
    scale = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
    rgb = pixels.permute(0, 3, 1, 2).float()
    for order, expected in (("RGB", rgb), ("BGR", rgb[:, [2, 1, 0]])):
        frozen = FrozenBackbone(Colours(), dict(mean=mean, std=std, channel_order=order))
        assert torch.allclose(frozen.prepare(pixels), (expected - scale[0]) / scale[1])
    lab = FrozenBackbone(Colours(), dict(mean=LAB_MEAN, std=LAB_STD, channel_order="Lab"))
    scale = torch.tensor(LAB_MEAN).view(3, 1, 1), torch.tensor(LAB_STD).view(3, 1, 1)
    expected = (rgb_to_lab(rgb / 255) - scale[0]) / scale[1]
    assert torch.allclose(lab.prepare(pixels), expected, atol=1e-5)


def picture(path: Path, width: int, height: int) -> tuple[Path, np.ndarray]:
    """A smooth picture: its columns are its red, its rows its green."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([columns * 255 // width, rows * 255 // height, 0 * rows], 2).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path, pixels


def test_crops_show_what_they_should(tmp_path):
    path, pixels = picture(tmp_path / "a.png", 160, 80)
    centre = centre_crop(Sample(str(path), 0), 70)  # 70 / 80 = 224 / 256: no resizing at all
    assert np.array_equal(centre.numpy(), pixels[5:75, 45:115])
    boxed = centre_crop(Sample(str(path), 0, (20.0, 10.0, 52.0, 42.0)), 32)
    assert np.array_equal(boxed.numpy(), pixels[10:42, 20:52])
    for box in ((150.0, 70.0, 170.0, 90.0), (20.2, 10.1, 20.4, 10.3), (-5.0, -5.0, 300.0, 300.0)):
        assert centre_crop(Sample(str(path), 0, box), 32).shape == (32, 32, 3)
    boxes = ((-5.0, -5.0, 300.0, 300.0), (0.0, 0.0, 160.0, 80.0))  # what is outside is cut off
    assert torch.equal(*(centre_crop(Sample(str(path), 0, box), 32) for box in boxes))
    whole = whole_image(Sample(str(path), 0), 160)
    assert np.array_equal(whole[:80].numpy(), pixels)
    assert (whole[80:] == torch.tensor([124, 116, 104])).all()


def test_a_large_photograph_keeps_the_detail_that_is_looked_at(tmp_path):
    blocks = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    pixels = blocks.repeat(16, 0).repeat(16, 1)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95)
    box = centre_crop(Sample(str(tmp_path / "a.jpg"), 0, (96.0, 160.0, 160.0, 224.0)), 64)
    assert np.abs(box.numpy().astype(int) - pixels[160:224, 96:160]).mean() < 10
    whole = whole_image(Sample(str(tmp_path / "a.jpg"), 0), 640)[:480]
    half = pixels.reshape(480, 2, 640, 2, 3).mean((1, 3))
    assert np.abs(whole.numpy() - half).mean() < 10


def test_stages_are_concatenated_at_the_finest_grid(checkpoint):
    frozen = load_frozen(checkpoint, stages=(1, 3))
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with evaluating(frozen.module):
        c3, c5 = frozen.module(frozen.prepare(pixels))
        maps = frozen.maps(pixels, (3, 1))
        assert maps.shape == (2, 128 + 512, 8, 8)
        assert torch.equal(maps[:, :128], c3)
        finer = nn.functional.interpolate(c5, (8, 8), mode="bilinear")  # by its pixels' centres
        assert torch.allclose(maps[:, 128:], finer, atol=1e-5)
        assert torch.equal(frozen.embed(pixels), c5.mean((2, 3)))
        with pytest.raises(UserError, match=r"stages \(1, 3\), not \(2,\)"):
            frozen.maps(pixels, (2, 3))


@pytest.mark.slow
def test_a_checkpoint_brings_its_input_size_and_name(checkpoint):
    frozen = load_frozen(checkpoint)
    assert frozen.size == 64 and frozen.input["mean"] == [100.0, 110.0, 120.0]
    assert frozen.facts["method"] == "BYOL" and frozen.facts["step"] == 7
    student, teacher = (load_frozen(checkpoint, which).module for which in ("student", "teacher"))
    assert not torch.equal(student.conv1.weight, teacher.conv1.weight)


def test_random_weights_follow_the_seed_and_leave_the_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    one, same, other = (
        load_frozen("random", architecture="resnet18", seed=seed).module.conv1.weight
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow
def test_a_split_backbone_on_lab_is_one_backbone(classes, tmp_path):
    """CMC's two networks: their maps side by side."""
    architecture = dict(type="SplitResNet", depth=18, width=0.25)
    state = build_backbone(architecture).state_dict()
    lab = dict(mean=list(LAB_MEAN), std=list(LAB_STD), channel_order="Lab")
    meta = dict(format="densessl/1", method="CMC", architecture=architecture, input=lab)
    tensors = {f"backbone.{key}": value for key, value in state.items()}
    torch.save(dict(meta=meta, state_dict=tensors), tmp_path / "cmc.pth")
    result = evaluate(tmp_path / "cmc.pth", classes, ["knn"], size=32)
    assert result["metrics"]["knn_top1"] == 100
    assert load_frozen(tmp_path / "cmc.pth").input == lab


@pytest.mark.slow
def test_a_vision_transformer_gives_its_class_token_at_its_own_size():
    frozen = load_frozen("random", architecture="vit_tiny_patch16_224")
    assert frozen.size == 224
    pixels = torch.randint(0, 256, (1, 224, 224, 3), dtype=torch.uint8)
    with evaluating(frozen.module):
        assert torch.equal(frozen.embed(pixels), frozen.module.embed(frozen.prepare(pixels))[1])
        assert frozen.maps(pixels).shape == (1, 192, 14, 14)


def test_a_backbone_of_one_size_asks_for_it():
    vit = build_backbone(dict(type="TimmBackbone", name="vit_tiny_patch16_224", img_size=64))
    frozen, pixels = FrozenBackbone(vit.eval()), torch.zeros(1, 96, 96, 3, dtype=torch.uint8)
    for look in (frozen.embed, frozen.maps):
        with pytest.raises(UserError, match="96 x 96 pixels") as error:
            look(pixels)
        assert "--size 64" in error.value.remedy and "train" not in error.value.remedy


def test_images_are_represented_by_what_was_trained(tmp_path):
    """MoCo v3 trains a ViT's class token, the other methods its last map."""
    architecture = dict(
        type="TimmBackbone", name="vit_tiny_patch16_224", depth=2, img_size=32, patch_size=8
    )
    state = {f"backbone.{key}": v for key, v in build_backbone(architecture).state_dict().items()}
    pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    for method in ("MoCoV3", "SimCLR"):
        meta = dict(format="densessl/1", method=method, architecture=architecture)
        meta["input"] = dict(mean=[0.0] * 3, std=[255.0] * 3, channel_order="RGB")
        torch.save(dict(meta=meta, state_dict=state), tmp_path / "a.pth")
        frozen = load_frozen(tmp_path / "a.pth")
        with evaluating(frozen.module):
            last, token = frozen.module.embed(frozen.prepare(pixels))
            expected = token if method == "MoCoV3" else last.mean((2, 3))
            assert torch.equal(frozen.embed(pixels), expected)


def test_broken_images_are_counted_and_many_are_refused(tmp_path):
    samples = []
    for number in range(40):
        samples.append(Sample(str(picture(tmp_path / f"{number}.png", 40, 40)[0]), number))
    (tmp_path / "3.png").write_bytes(b"broken")
    (tmp_path / "33.png").unlink()
    net = Colours()
    frozen = FrozenBackbone(net)
    with evaluating(net):
        features, kept, problems = extract(frozen.embed, samples, centre_crop, 32, batch_size=8)
        assert [s.label for s in kept] == [i for i in range(40) if i not in (3, 33)]
        assert features.shape == (38, 3) and len(problems) == 2 and "3.png" in problems[0]
        alone = frozen.embed(centre_crop(samples[39], 32)[None])
        assert torch.allclose(features[-1], alone[0], atol=1e-5)
        (tmp_path / "4.png").write_bytes(b"")
        with pytest.raises(UserError, match="3 of 40 images cannot be read"):
            extract(frozen.embed, samples, centre_crop, 32)
