"""From files to figures: tasks, results, tables, the tool."""

import json
import runpy

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
    evaluating,
)
from densessl.evaluation.tasks import TASKS, Settings
from tests.evaluation.nets import Colours
from tests.evaluation.sets import make_classes, make_split_classes, write_class
from tests.labels.damage import learn_from_val
from tests.tiny_sets import make_voc
from tests.training import REPO


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


def test_results_compare_wherever_two_of_them_share_a_task(classes):
    base = evaluate(Colours(), classes, ["knn", "linear"], size=32)
    only_knn, both, only_linear = (json.loads(json.dumps(base)) for _ in range(3))
    for result, other in ((only_knn, "linear"), (only_linear, "knn")):
        for part in ("data", "metrics", "chance"):
            name = other if part == "data" else f"{other}_top1"
            del result[part][name]
    only_linear["data"]["linear"]["train"] = 1
    with pytest.raises(UserError, match="do not compare: linear.train is"):
        table([only_knn, both, only_linear])


def test_chance_in_a_table_is_the_mean_of_the_results(classes):
    """A split that is drawn has another commonest class for another seed."""
    results = [evaluate(Colours(), classes, ["knn"], size=32, seed=seed) for seed in (0, 1)]
    for result, chance in zip(results, (20.0, 40.0), strict=True):
        result["chance"]["knn_top1"] = chance
    assert table(results).splitlines()[-1] == "| chance | 30.0 |  |"


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


@pytest.mark.parametrize("beside", [["--out", "table.md"], ["--data", "x"]])
def test_a_table_takes_nothing_that_it_would_pass_over(tmp_path, capsys, beside):
    with pytest.raises(SystemExit):
        run_tool("--table", tmp_path / "a.json", *beside)
    assert "--table only prints" in capsys.readouterr().err


def test_the_tool_counts_images_in_both_parts(checkpoint, tmp_path, capsys):
    data = make_voc(tmp_path / "voc", train=10)
    learn_from_val(data)
    assert run_tool(checkpoint, "--data", data, "--tasks", "crops", "dense", "--size", 32) == 0
    shown = capsys.readouterr().out
    for line in ("crops: learned from 28, judged on 8", "dense: learned from 14, judged on 4"):
        assert f"{line}; images in both parts, learned from and judged on: 4\n" in shown


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
