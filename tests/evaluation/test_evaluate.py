"""From files to figures: input conventions, crops, tasks, results, tables, the tool."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from densessl.errors import UserError
from densessl.evaluation import evaluate, table
from densessl.evaluation.data import LabelledSet, Sample
from densessl.evaluation.features import (
    FrozenBackbone,
    centre_crop,
    evaluating,
    extract,
    load_frozen,
    whole_image,
)
from densessl.evaluation.tasks import TASKS, Settings
from densessl.models import build_backbone
from densessl.models.preprocessor import LAB_MEAN, LAB_STD
from densessl.transforms.lab import rgb_to_lab
from tests.evaluation.sets import make_classes, make_split_classes, write_class
from tests.training import REPO
from tests.transfer.tiny_sets import make_voc


class Colours(nn.Module):
    """A net that averages the colour over squares of 16 pixels."""

    out_channels = (3,)

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return (nn.functional.avg_pool2d(x, 16) * self.scale,)


@pytest.fixture(scope="module")
def classes(tmp_path_factory) -> Path:
    return make_classes(tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def voc(tmp_path_factory) -> Path:
    return make_voc(tmp_path_factory.mktemp("voc"), train=10, val=6)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A checkpoint as pretraining writes it, with a student and a teacher."""
    path = tmp_path_factory.mktemp("checkpoint") / "epoch_1.pth"
    architecture = dict(type="ResNet", depth=18)
    state = build_backbone(architecture).state_dict()
    teacher = build_backbone(architecture).state_dict()
    meta = dict(
        format="densessl/1",
        method="BYOL",
        architecture=architecture,
        input=dict(mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0], channel_order="RGB"),
        view_size=64,
        step=7,
    )
    tensors = {f"backbone.{key}": value for key, value in state.items()}
    tensors |= {f"teacher.backbone.{key}": value for key, value in teacher.items()}
    torch.save(dict(meta=meta, state_dict=tensors), path)
    return path


def test_colours_are_told_apart(classes):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    result = evaluate(Colours(), classes, size=32)
    assert torch.rand(1) == expected  # a training beside it draws what it would have drawn
    assert result["metrics"] == {"knn_top1": 100, "linear_top1": 100}
    assert result["chance"]["knn_top1"] == pytest.approx(100 / 3)
    assert result["data"]["knn"]["train"] == 15 and result["data"]["knn"]["val"] == 3
    json.dumps(result, allow_nan=False)
    few = evaluate(Colours(), classes, ["knn"], size=32, limit=4)
    assert few["data"]["knn"]["train"] == 4 and few["data"]["knn"]["val"] == 3


def test_chance_is_a_guess_of_what_is_most_frequent_in_training(tmp_path):
    for part, red, blue in (("train", 8, 2), ("val", 1, 4)):
        write_class(tmp_path / part / "red", "red", red)
        write_class(tmp_path / part / "blue", "blue", blue)
    result = evaluate(Colours(), tmp_path, ["knn"], size=32)
    assert result["chance"]["knn_top1"] == pytest.approx(20)


def test_chance_of_masks_is_a_guess_of_what_most_pixels_are_in_training(tmp_path):
    parts = {}
    for part, most in (("train", 1), ("val", 0)):
        pixels = np.full((8, 8), most, np.uint8)
        pixels[0] = 1 - most
        Image.fromarray(pixels).save(tmp_path / f"{part}.png")
        parts[part] = [Sample("", str(tmp_path / f"{part}.png"))]
    found = LabelledSet(["a", "b"], **parts, values=np.arange(256, dtype=np.uint8))
    maps, (_, judge) = torch.randn(1, 2, 4, 4), TASKS["dense"]
    figures = judge(found, lambda part: (maps, parts[part], []), Settings(32), torch.device("cpu"))
    assert figures.chance["dense_mIoU"] == pytest.approx(100 * (0 + 8 / 64) / 2)  # all of it "b"


def test_a_wrapped_module_is_called_by_its_class(classes):
    result = evaluate(FrozenBackbone(Colours()), classes, ["knn"], size=32)
    assert result["backbone"]["name"] == result["backbone"]["source"] == "Colours"
    for side in (48, None):  # that of the pretraining's views, where it is known
        frozen = FrozenBackbone(Colours(), view_size=side)
        assert evaluate(frozen, classes, ["knn"])["settings"]["size"] == (side or 128)


def test_voc_gives_all_five(voc):
    result = evaluate(Colours(), voc, size=96)
    figures, chance = result["metrics"], result["chance"]
    assert list(figures) == [
        "knn_mAP",
        "linear_mAP",
        "crop_knn_top1",
        "dense_mIoU",
        "cell_knn_mIoU",
    ]
    assert figures["crop_knn_top1"] == 100  # discs are red, squares are blue
    assert figures["linear_mAP"] > 95 > chance["linear_mAP"]
    for dense in ("dense_mIoU", "cell_knn_mIoU"):
        assert figures[dense] > 60 > 40 > chance[dense]
    assert result["by_class"]["dense_IoU"].keys() == {"background", "disc", "square"}
    json.dumps(result, allow_nan=False)
    assert evaluate(Colours(), voc, size=96)["metrics"] == figures  # to the last bit


def test_the_module_is_left_as_it_was(classes):
    net = nn.Sequential(Colours())
    net.frozen = nn.BatchNorm2d(3).eval()
    net.forward = lambda x: net[0](x)
    net.train()
    net.frozen.eval()
    with evaluating(net):
        assert not net[0].training and not torch.is_grad_enabled()
    assert net.training and net[0].training and not net.frozen.training


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


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(tasks=["knm"]), "no task 'knm' .did you mean 'knn'"),
        (dict(tasks=["knn", "dense"]), "has no masks to evaluate 'dense' on"),
        (dict(size=8), "size cannot be 8"),
        (dict(k=0), "k cannot be 0"),
        (dict(limit=0), "limit cannot be 0"),
        (dict(stages=(3, 3)), "stages cannot be"),
    ],
)
def test_wrong_requests(classes, options, message):
    with pytest.raises(UserError, match=message):
        evaluate(Colours(), classes, **options)


def test_a_table_of_results(classes):
    base = evaluate(Colours(), classes, ["knn"], size=32, name="a")
    results = []
    for name, value, seed in (("a", 50.0, 0), ("a", 60.0, 1), ("b", 70.0, 0)):
        result = json.loads(json.dumps(base))
        result["backbone"]["name"], result["metrics"]["knn_top1"] = name, value
        result["settings"]["seed"] = seed
        results.append(result)
    lines = table(results).splitlines()
    assert lines == [
        "|  | knn_top1 | n |",
        "| --- | ---: | ---: |",
        "| a | 55.0 ± 7.1 | 2 |",
        "| b | 70.0 | 1 |",
        "| chance | 33.3 |  |",
    ]
    for result, step in zip(results, (7, 7, None), strict=True):
        result["backbone"] |= dict(name="a", architecture="ResNet-18", which="student", step=step)
    results[2]["backbone"]["which"] = "teacher"
    rows = [line.split(" | ") for line in table(results).splitlines()[2:4]]
    assert rows == [
        ["| a, ResNet-18, student, step 7", "55.0 ± 7.1", "2 |"],
        ["| a, ResNet-18, teacher", "70.0", "1 |"],
    ]
    other = json.loads(json.dumps(results[0]))  # another task of the same weights: one row
    other["data"]["linear"] = other["data"].pop("knn")
    other["metrics"] = other["chance"] = dict(linear_top1=1.0)
    for result in (results[0], other):
        result["backbone"]["sha256"] = "0"
    assert len(table([results[0], other]).splitlines()) == 4
    piped = json.loads(json.dumps(results[2]))
    piped["backbone"]["name"] = "a|b"
    assert table([piped]).splitlines()[2] == r"| a\|b | 70.0 | 1 |"
    fewer = json.loads(json.dumps(results))
    fewer[1]["data"]["knn"]["classes"].pop()
    with pytest.raises(UserError, match="do not compare: knn.classes is"):
        table(fewer)
    for name, there, here in (("k", 20, 200), ("size", 32, 64)):
        other = json.loads(json.dumps(results))
        other[1]["settings"][name] = here
        with pytest.raises(UserError, match=f"{name} is {there} for a and {here} for a"):
            table(other)
    with pytest.raises(UserError, match="has the format None"):
        table([{}])


def test_a_seed_that_changed_nothing_is_no_second_seed(voc, classes, checkpoint):
    """VOC has its own split; that of a folder of classes follows the seed, as random weights do."""

    def rows(*asked, **options):
        return table([evaluate(*asked, size=32, seed=seed, **options) for seed in (0, 1)])

    with pytest.raises(UserError, match="the same evaluation of the same weights"):
        rows(checkpoint, voc, ["crops"])
    assert " | 2 |" in rows(checkpoint, voc, ["crops"], limit=5)
    assert " | 2 |" in rows(checkpoint, classes, ["knn"])
    assert " | 2 |" in rows("random", voc, ["crops"], architecture="resnet18")


def run_tool(*arguments: str) -> int:
    return runpy.run_path(str(REPO / "tools" / "test.py"))["main"]([*map(str, arguments)])


def test_the_tool(checkpoint, tmp_path, capsys):
    data, out = make_split_classes(tmp_path / "data"), tmp_path / "results" / "byol.json"
    arguments = [checkpoint, "--data", data, "--tasks", "knn", "--size", 32, "--out", out]
    assert run_tool(*arguments, "--which", "teacher", "--batch-size", 5) == 0
    result = json.loads(out.read_text())
    assert result["format"] == "densessl-evaluation/1"
    assert result["settings"]["size"] == 32 and result["backbone"]["which"] == "teacher"
    assert {"commit", "hardware", "versions", "command", "date"} <= result["environment"].keys()
    shown = capsys.readouterr().out
    assert "BYOL (ResNet-18) at 32 px on data" in shown
    assert "knn: learned from" in shown
    figures = (result[kind]["knn_top1"] for kind in ("metrics", "chance"))
    assert "knn_top1        {:>8.2f}{:>8.2f}".format(*figures) in shown
    assert run_tool("--table", out) == 0
    assert "| BYOL |" in capsys.readouterr().out
    assert run_tool("--table", out, out) == 2  # no mean over one result
    assert "the same evaluation of the same weights" in capsys.readouterr().err


def test_the_tool_says_what_is_wrong(tmp_path, capsys):
    (tmp_path / "broken.pth").write_bytes(b"no checkpoint")
    data = make_classes(tmp_path / "data", (4, 4, 4))
    assert run_tool(tmp_path / "broken.pth", "--data", data) == 2
    assert "is no checkpoint" in capsys.readouterr().err
    assert run_tool("--table", tmp_path / "broken.pth") == 2
    (tmp_path / "list.json").write_text("[1]")
    assert run_tool("--table", tmp_path / "list.json") == 2
    assert "A result has the format None" in capsys.readouterr().err
    assert run_tool("random", "--architecture", "resnet19", "--data", data) == 2
    assert "no ResNet of depth 19" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run_tool(tmp_path / "broken.pth")
