"""Features are judged where the backbone is: on a pretended GPU, with the figures of a CPU."""

import pytest
import torch

from densessl.evaluation import evaluate
from densessl.evaluation.features import FrozenBackbone
from tests.evaluation.pretended import GPU, PretendedGPU
from tests.evaluation.sets import make_classes
from tests.evaluation.test_evaluate import Colours
from tests.tiny_sets import make_voc


class Elsewhere(FrozenBackbone):
    """Gives its features from the CPU, and says that it is on the GPU."""

    device = GPU


@pytest.mark.parametrize(
    "make, tasks, heavy",
    [
        (make_classes, ["knn"], {"matmul", "topk"}),
        (make_classes, ["linear"], {"linear", "cross_entropy", "backward"}),
        (make_voc, ["knn", "crops"], {"matmul", "topk"}),
        (make_voc, ["linear"], {"linear", "binary_cross_entropy_with_logits", "backward"}),
        (make_voc, ["dense"], {"cross_entropy", "backward", "interpolate", "argmax", "bincount"}),
        (make_voc, ["cells"], {"matmul", "topk", "interpolate", "argmax", "bincount"}),
    ],
)
def test_what_is_heavy_is_done_on_the_device(tmp_path, make, tasks, heavy):
    data = make(tmp_path / "data")
    on_cpu = evaluate(Colours(), data, tasks, size=64)
    with PretendedGPU() as gpu:
        there = evaluate(Elsewhere(Colours()), data, tasks, size=64, name="there")
    assert there["metrics"] == on_cpu["metrics"] and there["by_class"] == on_cpu["by_class"]
    assert heavy <= gpu.computed


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_figures_of_a_cpu(tmp_path):
    data = make_voc(tmp_path / "data")
    on_cpu = evaluate(Colours(), data, size=64)["metrics"]
    assert evaluate(Colours().cuda(), data, size=64)["metrics"] == pytest.approx(on_cpu, abs=1)
