import pytest
import torch

from densessl.models import LabPreprocessor
from densessl.structures import ViewBatch
from densessl.transforms.lab import rgb_to_lab
from tests.models.tiny import record

# CIE's definitions for sRGB with D65, as colour tables print them.
KNOWN = {
    (1.0, 1.0, 1.0): (100.0, 0.0, 0.0),
    (0.0, 0.0, 0.0): (0.0, 0.0, 0.0),
    (1.0, 0.0, 0.0): (53.24, 80.09, 67.20),
    (0.0, 1.0, 0.0): (87.73, -86.18, 83.18),
    (0.0, 0.0, 1.0): (32.30, 79.19, -107.86),
    (0.5, 0.5, 0.5): (53.39, 0.0, 0.0),
}


@pytest.mark.parametrize("rgb,lab", KNOWN.items())
def test_known_colours(rgb, lab):
    image = torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1)
    assert rgb_to_lab(image).flatten().tolist() == pytest.approx(lab, abs=0.01)


def test_dark_colours_join_smoothly():
    ramp = torch.linspace(0, 0.2, 2001, dtype=torch.float64)
    light = rgb_to_lab(ramp.view(1, 1, 1, -1).expand(1, 3, 1, -1))[0, 0, 0]
    steps = light.diff()
    assert (steps > 0).all() and (steps[1:] / steps[:-1] - 1).abs().max() < 0.02


def test_the_preprocessor_gives_normalised_lab():
    preprocessor = LabPreprocessor()
    pixels = torch.randint(0, 256, (2, 20, 20, 3), dtype=torch.uint8)
    drawn = record(2, 20)._replace(flip=torch.tensor([False, True]))
    batch = ViewBatch((pixels,), (drawn,), torch.arange(2), torch.full((2,), -1))
    view = preprocessor(batch, True)["batch"].views[0]
    rgb = pixels.permute(0, 3, 1, 2).double() / 255
    rgb[1] = rgb[1].flip(-1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((50, 6.025, -6.69), (50, 92.2, 101.2)))
    assert view.dtype == torch.float32
    assert torch.allclose(view.double(), (rgb_to_lab(rgb) - mean) / std, atol=1e-4)
    assert preprocessor.channel_order == "Lab"


def test_autocast_does_not_coarsen_colours():
    images = torch.rand(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        lab = rgb_to_lab(images)
    assert lab.dtype == torch.float32 and torch.allclose(lab, rgb_to_lab(images), atol=1e-3)
