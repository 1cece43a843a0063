import math
import sys
import time

import pytest
import torch
import torch.nn.functional as F

from densessl.benchmark.measure import PeakMemory, time_interleaved
from densessl.losses import info_nce
from densessl.threads import one_thread


def materialised(query, positive, negatives, temperature):
    logits = torch.cat([(query * positive).sum(1, keepdim=True), query @ negatives.T], 1)
    target = torch.zeros(len(query), dtype=torch.long)
    return F.cross_entropy(logits / temperature, target)


def inputs(rows, queue, channels=16, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda n: F.normalize(torch.randn(n, channels, generator=g, dtype=dtype), dim=1)  # noqa: E731
    return draw(rows).requires_grad_(), draw(rows).requires_grad_(), draw(queue)


@pytest.fixture(params=["attend", "stream"])
def form(request, monkeypatch):
    """The CPU's way and the accelerator's, this with blocks that do not divide the inputs."""
    module = sys.modules[info_nce.__module__]
    monkeypatch.setattr(module, "BLOCK", (512, 768))
    monkeypatch.setattr(module, "attend", getattr(module, request.param))


@pytest.mark.parametrize("rows,queue", [(1, 1), (7, 5), (515, 2048), (33, 4999), (1030, 776)])
@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_value_and_gradient_equal_the_materialised_form(form, rows, queue, temperature):
    query, positive, negatives = inputs(rows, queue)
    expected = materialised(query, positive, negatives, temperature)
    expected_grads = torch.autograd.grad(expected, (query, positive))
    loss = info_nce(query, positive, negatives, temperature)
    grads = torch.autograd.grad(loss, (query, positive))
    assert abs(loss.item() - expected.item()) < 1e-10
    for grad, reference in zip(grads, expected_grads, strict=True):
        assert (grad - reference).abs().max() < 1e-10


def test_vectors_need_not_be_normalised(form):
    query, positive, negatives = inputs(9, 2500)
    query, positive, negatives = query * 40, positive * 40, negatives * 40
    expected = materialised(query, positive, negatives, 0.05)
    assert torch.isclose(info_nce(query, positive, negatives, 0.05), expected, rtol=1e-12)


def test_inputs_may_have_any_strides(form):
    args = inputs(50, 64)
    expected = info_nce(*args)
    turned = [x.detach().T.contiguous().T for x in args]
    for place in range(3):
        mixed = [*args[:place], turned[place], *args[place + 1 :]]
        assert torch.isclose(info_nce(*mixed), expected, rtol=1e-12)
    assert torch.isclose(info_nce(*turned), expected, rtol=1e-12)
    same = args[2][:1].expand(64, -1)
    assert torch.isclose(info_nce(*args[:2], same), info_nce(*args[:2], same.clone()), rtol=1e-12)


def test_identical_vectors_give_log_k_plus_one(form):
    same = F.normalize(torch.ones(4, 8, dtype=torch.float64), dim=1)
    loss = info_nce(same, same, same[:1].expand(3000, -1))
    assert loss.item() == pytest.approx(math.log(3001), abs=1e-12)


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_what_is_no_number_is_not_hidden(form, broken):
    args = inputs(9, 2500)
    with torch.no_grad():
        args[broken][3, 2] = torch.nan
    assert info_nce(*args).isnan()


def test_negatives_get_no_gradient_and_positive_alone_may_have_one():
    query, positive, negatives = inputs(5, 100)
    negatives.requires_grad_()
    info_nce(query.detach(), positive, negatives).backward()
    assert negatives.grad is None and query.grad is None
    reference = materialised(query.detach(), positive, negatives.detach(), 0.2)
    (expected,) = torch.autograd.grad(reference, positive)
    assert (positive.grad - expected).abs().max() < 1e-12


def test_autocast_does_not_lower_the_precision():
    query, positive, negatives = inputs(64, 3000, dtype=torch.float32)
    plain = info_nce(query, positive, negatives)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = info_nce(query, positive, negatives)
        from_bf16 = info_nce(query.bfloat16(), positive.bfloat16(), negatives)
    assert under_autocast.item() == plain.item()
    assert from_bf16.dtype == torch.float32


@pytest.mark.parametrize(
    "shapes", [((2, 3), (3, 3), (4, 3)), ((0, 3), (0, 3), (4, 3)), ((2, 3), (2, 3), (4, 5))]
)
def test_wrong_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match="info_nce"):
        info_nce(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.slow
def test_streaming_uses_an_eighth_of_the_memory_and_no_more_time():
    """1568 rows (32 images x 49 cells) against 65,536 negatives, both forms in one run."""
    memory, calls = {}, {}
    for form in (info_nce, materialised):
        query, positive, negatives = inputs(1568, 65536, 128, torch.float32)
        calls[form] = lambda form=form, args=(query, positive, negatives, 0.2): torch.autograd.grad(
            form(*args), args[:2]
        )
    cpu = torch.device("cpu")
    # One thread and its processor time: other tests run on the machine's other cores.
    with one_thread():
        for form, call in calls.items():
            with PeakMemory(cpu) as peak:
                call()
            memory[form] = peak.extra
        seconds = time_interleaved(calls, cpu, 3, 0, time.process_time)
    assert memory[materialised] > 700, "the measurement itself must see the logits"
    assert memory[info_nce] < memory[materialised] / 8
    assert min(seconds[info_nce]) <= min(seconds[materialised])


def test_a_temperature_to_be_learned_is_refused():
    one = F.normalize(torch.randn(4, 8), dim=1)
    with pytest.raises(ValueError, match="no gradient for its temperature"):
        info_nce(one, one, one, temperature=torch.tensor(0.2, requires_grad=True))
