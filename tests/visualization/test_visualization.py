"""The pictures show what they say: checked on images and networks whose answer is known."""

import importlib.util

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image
from torch import nn

from densessl.datasets import ImageFolder, collate_views
from densessl.errors import UserError
from densessl.models.preprocessor import ViewPreprocessor
from densessl.numeric import spaced
from densessl.structures import SampleKey
from densessl.transforms import MultiView
from densessl.visualization import show_correspondence, show_features, show_views
from densessl.visualization.correspondence import ALONE, RIGHT, WRONG
from densessl.visualization.features import components
from tests.checkpoints import write_checkpoint
from tests.training import REPO, write_config, write_images

spec = importlib.util.spec_from_file_location("visualize_tool", REPO / "tools" / "visualize.py")
visualize = importlib.util.module_from_spec(spec)
spec.loader.exec_module(visualize)


@pytest.fixture(scope="module")
def slopes(tmp_path_factory):
    """Three images whose colour says the place: red rises to the right, green downwards."""
    folder = tmp_path_factory.mktemp("slopes")
    across, down = np.meshgrid(np.linspace(0, 255, 200), np.linspace(0, 255, 200))
    pixels = np.stack([across, down, np.full_like(across, 128)], -1).astype(np.uint8)
    for number in range(3):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


class Colours(nn.Module):
    """A backbone whose cells say the place, or the same everywhere."""

    out_indices = (3,)

    def __init__(self, blind: bool = False):
        super().__init__()
        self.blind, self.unused = blind, nn.Parameter(torch.zeros(1))

    def forward(self, x):
        cells = nn.functional.adaptive_avg_pool2d(x[:, :2], 7) * (not self.blind)
        return (torch.cat([cells, -cells, cells.square(), torch.ones_like(cells)], 1),)


def colour_counts(figure):
    found = [to_hex(line.get_edgecolor()) for line in figure.artists]
    return {colour: found.count(colour) for colour in (RIGHT, WRONG, ALONE)}


def test_spaced_begins_with_the_first_and_ends_with_the_last():
    assert spaced(10, 3) == [0, 4, 9] and spaced(2, 5) == [0, 1]
    assert spaced(7, 1) == [0] and spaced(0, 3) == []


def colour_at(axes, place):
    x, y = map(int, place)
    return axes.images[0].get_array()[y, x, :2].astype(int)


def test_cells_that_know_their_place_are_confirmed(slopes):
    figure = show_correspondence(Colours(), slopes, size=64, seed=3)
    for number, line in enumerate(figure.artists):
        if to_hex(line.get_edgecolor()) == RIGHT:  # it joins what has the same place: colour
            first, second = figure.axes[2 * (number // 49) :][:2]
            assert abs(colour_at(first, line.xy1) - colour_at(second, line.xy2)).max() < 60
    counts = colour_counts(figure)
    assert counts[RIGHT] > 0.9 * (counts[RIGHT] + counts[WRONG])
    assert sum(counts.values()) == 3 * 49
    blind = colour_counts(show_correspondence(Colours(blind=True), slopes, size=64, seed=3))
    assert blind[WRONG] > 0.7 * (blind[RIGHT] + blind[WRONG]) and blind[ALONE] == counts[ALONE]


def test_components_are_the_principal_ones():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 6, 4, 5, generator=generator) * torch.tensor([9, 7, 5, 1, 1, 1.0]).view(
        1, 6, 1, 1
    )
    colours = components(maps)
    assert colours.shape == (2, 4, 5, 3) and 0 <= colours.min() and colours.max() <= 1
    cells = maps.permute(0, 2, 3, 1).reshape(-1, 6).double().numpy()
    cells = cells - cells.mean(0)
    left, scale, _ = np.linalg.svd(cells, full_matrices=False)
    for number in range(3):
        ours = colours.reshape(-1, 3)[:, number].numpy()
        middle = (ours > 0) & (ours < 1)  # the rest was cut off
        theirs = left[:, number] * scale[number]
        theirs = theirs * np.sign((theirs**3).sum())
        assert np.corrcoef(ours[middle], theirs[middle])[0, 1] == pytest.approx(1, abs=1e-9)
    assert torch.equal(colours, components(maps))


def test_views_are_those_of_the_training(tmp_path):
    images = write_images(tmp_path / "images", 5)
    config = write_config(tmp_path / "config.py", images)
    figure = show_views(config, count=2, seed=7, epoch=1)
    assert len(figure.axes) == 2 * 3
    dataset = ImageFolder(str(images), MultiView(["moco_v2", "moco_v2"], 32))
    batch = collate_views([dataset[SampleKey(7, 1, index)] for index in (0, 4)])
    views = ViewPreprocessor((0, 0, 0), (255, 255, 255))(batch, True)["batch"]
    for row in range(2):
        source, *shown = figure.axes[3 * row : 3 * row + 3]
        for number, axes in enumerate(shown):
            drawn = axes.images[0].get_array()
            view = views.views[number][row].permute(1, 2, 0).clamp(0, 1)
            np.testing.assert_allclose(drawn, view.numpy(), atol=1e-6)
            x0, y0, x1, y1 = views.records[number].box[row].tolist()
            frame = source.patches[number]
            assert (*frame.get_xy(), frame.get_width(), frame.get_height()) == pytest.approx(
                (x0 - 0.5, y0 - 0.5, x1 - x0, y1 - y0)
            )
            assert axes.get_title().endswith("mirrored") == bool(views.records[number].flip[row])


def test_features_are_side_by_side(slopes):
    figure = show_features({"place": Colours(), "again": Colours()}, slopes, count=2, size=64)
    assert len(figure.axes) == 2 * 3
    one, other = (figure.axes[number].images[0].get_array() for number in (1, 2))
    assert one.shape == (7, 7, 3) and np.array_equal(one, other)


def test_the_tool_writes_each_picture(tmp_path, slopes, capsys):
    checkpoint = write_checkpoint(tmp_path / "a.pth", dict(type="ResNet", depth=18))
    config = write_config(tmp_path / "config.py", slopes)
    few = ["--images", str(slopes), "--count", "2", "--size", "64"]
    for number, command in enumerate(
        (
            ["views", str(config), "--count", "2"],
            ["correspondence", str(checkpoint), *few],
            ["features", f"ours={checkpoint}", "random", "--architecture", "resnet18", *few],
        )
    ):
        out = tmp_path / "new" / f"{number}.png"
        assert visualize.main([*command, "--out", str(out)]) == 0
        with Image.open(out) as picture:
            assert min(picture.size) > 100
    assert capsys.readouterr().out.count("Picture: ") == 3


def test_what_cannot_be_drawn_is_said(tmp_path, slopes, capsys):
    out = ["--out", str(tmp_path / "a.png")]
    assert visualize.main(["correspondence", "random", "--images", f"{slopes}x", *out]) == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"nothing")
    assert visualize.main(["features", "random", "--images", str(tmp_path / "broken"), *out]) == 2
    assert "a.png" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        visualize.main(["views", "x.py", "--out", "a.txt"])
    assert "must end in .png" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="No images found"):
        show_correspondence(Colours(), tmp_path / "empty", size=64)


def test_backbones_of_one_name_are_refused_and_paths_may_have_an_equals_sign(
    tmp_path, slopes, capsys
):
    files = [tmp_path / f"lr={rate}" / "epoch_1.pth" for rate in (1, 2)]
    for file in files:
        file.parent.mkdir()
        write_checkpoint(file, dict(type="ResNet", depth=18))
    few = [
        "--images",
        str(slopes),
        "--count",
        "1",
        "--size",
        "64",
        "--out",
        str(tmp_path / "a.png"),
    ]
    assert visualize.main(["features", *map(str, files), *few]) == 2
    assert "Several backbones are called 'epoch_1'" in capsys.readouterr().err
    named = [f"{number}={file}" for number, file in enumerate(files)]
    for sources in (named, [str(files[0])]):
        assert visualize.main(["features", *sources, *few]) == 0
