"""tools/benchmark.py on a tiny config: what it says is there, true where it can be checked."""

import importlib.util
import json
import mmap
import signal
import time

import numpy as np
import pytest
import torch
from torch import nn

from densessl.benchmark import recipe, record, table
from densessl.benchmark.data import throughput
from densessl.benchmark.loss import benchmark_loss, materialised
from densessl.benchmark.measure import PeakMemory, in_turn, peak_mb, summary, time_interleaved
from densessl.benchmark.parts import REST, time_parts
from densessl.benchmark.setup import build_dataset
from densessl.benchmark.step import TrainingStep, floor_step
from densessl.engine import Stopped
from densessl.files import write_json
from densessl.losses import info_nce
from densessl.structures import ViewBatch
from tests.training import REPO, write_config, write_images

CPU = torch.device("cpu")


def load_tool():
    spec = importlib.util.spec_from_file_location("benchmark_tool", REPO / "tools/benchmark.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tool(*argv: str, out) -> dict:
    assert load_tool().main([*argv, "--out", str(out)]) == 0
    return json.loads(out.read_text())


@pytest.fixture
def config(tmp_path):
    return str(write_config(tmp_path / "config.py", write_images(tmp_path / "images", 16)))


def test_rounds_are_interleaved_and_the_first_are_not_counted():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = time_interleaved(calls, CPU, repeats=3, warmup=2)
    assert order == ["a", "b"] * 5
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_a_summary_is_the_median_and_the_quartiles():
    values = [5.0, 1.0, 2.0, 4.0, 3.0]
    q25, median, q75 = np.quantile(values, [0.25, 0.5, 0.75])
    assert summary(values) == dict(median=median, q25=q25, q75=q75, runs=5)
    assert summary([7.0]) == dict(median=7.0, q25=7.0, q75=7.0, runs=1)


def test_peak_memory_sees_what_is_gone_again():
    with PeakMemory(CPU) as memory:
        held = mmap.mmap(-1, 50 * 2**20)  # not what earlier tests left free in the heap
        np.frombuffer(held, np.uint8)[:] = 1
        time.sleep(0.5)  # on a busy machine the watcher comes late
        held.close()
    assert 45 < memory.extra < 150


def test_both_forms_of_the_loss_are_the_same_loss():
    draw = torch.Generator().manual_seed(0)
    query, positive, queue = (
        torch.randn(n, 8, generator=draw, dtype=torch.float64) for n in (5, 5, 40)
    )
    assert torch.allclose(info_nce(query, positive, queue), materialised(query, positive, queue))


def test_loss_compares_every_pair_of_sizes(tmp_path, capsys):
    argv = ["loss", "--device", "cpu", "--rows", "32", "64", "--negatives", "128", "4096"]
    trace = tmp_path / "trace.json"
    argv += ["--dim", "8", "--repeats", "2", "--profile", str(trace)]
    result = tool(*argv, out=tmp_path / "loss.json")["result"]
    pairs = [(size["rows"], size["negatives"]) for size in result["sizes"]]
    assert pairs == [(32, 128), (32, 4096), (64, 128), (64, 4096)] and trace.exists()
    for size in result["sizes"]:
        times = [size[form]["seconds"]["median"] for form in ("streaming", "materialised")]
        assert size["time_ratio"] == times[0] / times[1]
    assert len(capsys.readouterr().out.splitlines()) == 2 + 1 + len(pairs)


def test_loss_leaves_out_what_does_not_fit(monkeypatch):
    monkeypatch.setattr("densessl.benchmark.loss.available_mb", lambda device: 0.0)
    (size,) = benchmark_loss([64], [256], 8, CPU, repeats=2)["sizes"]
    assert "streaming" in size and not {"materialised", "time_ratio"} & size.keys()


def test_memory_of_the_loss_is_seen_after_larger_sizes_too():
    large, small = benchmark_loss([2048, 512], [8192], 8, CPU, repeats=1)["sizes"]
    for size in (large, small):
        logits = 4 * size["rows"] * 8192 / 2**20
        assert 1.5 * logits < size["materialised"]["extra_mb"] < 8 * logits


def test_a_list_is_a_table_of_its_own():
    times = dict(median=0.25, q25=0.2, q75=0.3, runs=3)
    result = dict(dim=8, sizes=[dict(rows=1, ratio=0.5), dict(rows=10, seconds=times)])
    assert table(result).splitlines() == [
        "dim  8",
        "",
        "rows  ratio  seconds",
        "1     0.5    -",
        "10    -      0.25  (0.2 .. 0.3)",
    ]


@pytest.mark.slow
def test_step(tmp_path, config, capsys):
    trace = tmp_path / "trace.json"
    argv = [
        "step",
        config,
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--repeats",
        "2",
        "--warmup",
        "1",
    ]
    argv += ["--profile", str(trace), "--cfg-options", "optim_wrapper.accumulative_counts=2"]
    entry = tool(*argv, "model.queue_size=64", out=tmp_path / "step.json")
    result = entry["result"]
    assert entry["format"] == "densessl-benchmark/1" and entry["what"] == "step"
    assert entry["environment"].keys() == {"commit", "hardware", "versions", "command", "date"}
    assert result["images"] == 8 and result["view"] == [3, 32, 32]
    assert result["method"] == "DenseCL" and result["precision"] == "fp32"
    seconds = {name: value["median"] for name, value in result["seconds"].items()}
    pairs, memory, ratio = (result[name] for name in ("pairs_per_s", "peak_mb", "of_floor"))
    assert ratio["seconds"] == pytest.approx(seconds["step"] / seconds["floor"])
    assert pairs["step"] == pytest.approx(8 / seconds["step"])
    assert ratio["pairs_per_s"] == pytest.approx(pairs["step"] / pairs["floor"])
    assert ratio["peak_mb"] == memory["step"] / memory["floor"]
    assert all(100 < value < 10000 for value in memory.values())
    names = {event.get("name", "") for event in json.loads(trace.read_text())["traceEvents"]}
    assert any("convolution_backward" in name for name in names)
    assert "of_floor" in capsys.readouterr().out


def test_the_floor_is_one_view_with_a_gradient_and_one_without():
    seen, backbone = [], nn.Conv2d(3, 4, 1)
    backbone.register_forward_hook(lambda _, args, out: seen.append((args[0], out.requires_grad)))
    views = torch.randn(2, 3, 5, 5), torch.randn(2, 3, 5, 5)
    floor_step(backbone, [ViewBatch(views, (), None, None)], None)
    assert [(view is views[i], graph) for i, (view, graph) in enumerate(seen)] == [
        (True, True),
        (True, False),
    ]
    assert backbone.bias.grad.tolist() == [2 * 25.0] * 4


def test_throughput_counts_every_image_that_was_taken(config, monkeypatch):
    def timed(calls, device, repeats, warmup):
        calls["take"]()
        return {"take": [2.0] * repeats}

    monkeypatch.setattr("densessl.benchmark.data.time_interleaved", timed)
    cfg = recipe(config)
    rate = throughput(cfg, build_dataset(cfg), 0, 3)["images_per_s"]
    assert rate["median"] == 4 * 4 / 2.0  # four batches of four images


@pytest.mark.slow
def test_data(tmp_path, config):
    argv = ["data", config, "--count", "8", "--workers", "0", "1", "--repeats", "2"]
    result = tool(*argv, out=tmp_path / "data.json")["result"]
    assert result["images"] == 8
    worker = result["worker"]
    assert worker["decode_ms"]["median"] < worker["sample_ms"]["median"]
    assert worker["images_per_core_s"] == pytest.approx(1000 / worker["sample_ms"]["median"])
    assert [entry["workers"] for entry in result["loader"]] == [0, 1]
    assert all(entry["images_per_s"]["median"] > 1 for entry in result["loader"])


@pytest.mark.slow
def test_end_to_end(tmp_path, config, monkeypatch):
    waits = []

    def wait(device):
        waits.append(device)
        time.sleep(1)  # the work that a device has left at that step

    monkeypatch.setattr("densessl.benchmark.end_to_end.synchronize", wait)
    argv = ["end-to-end", config, "--steps", "6", "--warmup", "2"]
    result = tool(*argv, out=tmp_path / "whole.json")["result"]
    assert len(waits) == 2 and result["images_per_s"] < 6 * 4 / 1
    assert result["steps"] == 6 and result["images"] == 4 and result["workers"] == 0
    assert 0 < result["data_wait"] < 1 and result["images_per_s"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("steps, timed", [("3", 3), ("99", 5)])
def test_end_to_end_profiles_a_step_that_is_not_timed(tmp_path, config, steps, timed):
    """Of eight steps in all, where the second case asks for more."""
    trace = tmp_path / "trace.json"
    argv = ["end-to-end", config, "--steps", steps, "--warmup", "2", "--profile", str(trace)]
    assert tool(*argv, out=tmp_path / "whole.json")["result"]["steps"] == timed
    events = json.loads(trace.read_text())["traceEvents"]
    steps_seen = [e for e in events if e.get("name", "").startswith("Optimizer.step#")]
    assert len(steps_seen) == 1
    assert any("convolution_backward" in event.get("name", "") for event in events)


@pytest.mark.slow
def test_the_peak_of_a_process_is_not_its_parents():
    held = mmap.mmap(-1, 400 * 2**20)
    np.frombuffer(held, np.uint8)[:] = 1
    own, (seen,) = peak_mb(CPU), in_turn(peak_in_turn, ["child"], 1)["child"]
    held.close()
    assert own > 600 and seen < own - 300


def peak_in_turn(name: str) -> float:
    return peak_mb(CPU)


@pytest.mark.slow
def test_a_training_shorter_than_its_warmup_is_told(config, capsys):
    assert load_tool().main(["end-to-end", config, "--warmup", "99"]) == 2
    assert "ended within the warm-up of 99 steps" in capsys.readouterr().err


def test_a_mistake_is_one_message(tmp_path, capsys):
    assert load_tool().main(["step", str(tmp_path / "none.py")]) == 2
    assert capsys.readouterr().err.startswith("\nerror: There is no config")


def test_a_signal_ends_it_with_its_code_and_names_no_removed_file(config, monkeypatch, capsys):
    def stopped(*args):
        raise Stopped(signal.SIGTERM, "removed.pth")

    module = load_tool()
    monkeypatch.setattr(module, "benchmark_end_to_end", stopped)
    assert module.main(["end-to-end", config]) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "\nStopped: nothing was measured, nothing is kept.\n"


def test_tables_are_made_from_the_files_and_made_anew(tmp_path):
    spec = importlib.util.spec_from_file_location("tables", REPO / "tools/performance_tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- tables -->\nold\n<!-- /tables -->\nafter\n")
    times = dict(median=0.25, q25=0.2, q75=0.3, runs=3)
    entry = record("loss", dict(rows=7, streaming=times), None, "cpu")
    write_json(entry, tmp_path / "loss_cpu.json")
    (tmp_path / "other.json").write_text('{"format": "something else"}')
    for _ in range(2):
        assert tables.main([str(tmp_path), "--page", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- tables -->\n### loss_cpu\n")
    assert text.endswith("<!-- /tables -->\nafter\n") and text.count("###") == 1
    assert "streaming  0.25  (0.2 .. 0.3)" in text and "\nold\n" not in text
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit):
        tables.main([str(tmp_path / "empty"), "--page", str(page)])
    assert page.read_text() == text


def test_the_parts_of_a_step_are_all_of_it(config):
    step = TrainingStep(recipe(config, options={"model.queue_size": 64}), CPU)
    sleeper = step.method.dense_head.register_forward_hook(lambda *_: time.sleep(0.2))
    before = torch.cat([p.detach().flatten() for p in step.method.teacher.parameters()])
    start = time.perf_counter()
    parts = time_parts(step, step.method, step.wrapper.optimizer, CPU, 1)
    spent = time.perf_counter() - start
    sleeper.remove()
    seconds = {part["part"]: part["seconds"]["median"] for part in parts}
    assert parts[0]["part"] == "heads" and 0.2 < seconds["heads"]
    assert seconds.keys() == {
        "student forward",
        "student backward",
        "teacher forward",
        "heads",
        REST,
        "optimizer",
        "teacher's update, queues",
    }
    assert sum(part["share"] for part in parts) == pytest.approx(1)
    assert 0.9 * spent < sum(seconds.values()) <= spent
    after = torch.cat([p.detach().flatten() for p in step.method.teacher.parameters()])
    assert not torch.equal(before, after) and step.method.step == 1
    assert not step.method.backbone._forward_hooks
    assert "after_optimizer_step" not in vars(step.method)
