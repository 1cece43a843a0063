"""Two processes train as one process does on the whole batch."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from densessl.checkpoint import load_checkpoint
from densessl.models import ViewPreprocessor
from densessl.models.distributed import BatchShuffle, _as_bytes, _from_bytes
from tests.distributed import BATCH, STEPS, method, process, raw_views, train
from tests.models.tiny import views
from tests.training import REPO, write_config, write_images


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    """What two gloo processes computed."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(process, args=(2, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pth", weights_only=False) for rank in range(2)]


def test_rows_of_any_types_survive_the_journey_as_bytes():
    """One row too, in which no number begins where its type would like to."""
    for count in (1, 3):
        tensors = (torch.rand(count, 5) > 0.5, torch.randn(count, 2), torch.arange(count))
        for sent, back in zip(tensors, _from_bytes(_as_bytes(tensors), tensors), strict=True):
            assert torch.equal(sent, back) and sent.dtype == back.dtype


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("name", ["MoCo", "DenseCL"])
def test_two_processes_are_one_on_the_whole_batch(ranks, name, accumulation):
    alone = train(method(name), [views(BATCH, seed=step) for step in range(STEPS)])
    assert len(alone["gradients"]) == STEPS
    for rank in ranks:
        result = rank[name, accumulation]
        for expected, found in zip(alone["gradients"], result["gradients"], strict=True):
            assert expected.keys() == found.keys()
            for parameter, value in expected.items():
                assert torch.allclose(value, found[parameter], rtol=0, atol=1e-6), parameter
        assert alone["state"].keys() == result["state"].keys()
        assert {"queue.features", "teacher.head.mlp.0.weight"} <= result["state"].keys()
        for entry, value in alone["state"].items():
            assert torch.allclose(value, result["state"][entry], rtol=0, atol=1e-6), entry


@pytest.mark.slow
def test_shuffling_mixes_the_ranks_and_restoring_undoes_it(ranks):
    parts = [rank["shuffling"] for rank in ranks]
    for number, part in enumerate(parts):
        tags = part["seen"][:, 0, 0, 0]
        assert (tags // 100 == number).any() and (tags // 100 != number).any()
        assert torch.equal(part["maps"], part["images"] * 2)
        assert torch.equal(part["kept"], part["flags"]) and part["kept"].dtype == torch.bool
        assert part["halves"].dtype == torch.bfloat16
        assert torch.equal(part["halves"], part["images"].mean((2, 3)).to(torch.bfloat16))
    everything = torch.cat([part["seen"] for part in parts])[:, 0, 0, 0]
    assert sorted(everything.tolist()) == [0, 1, 2, 3, 100, 101, 102, 103]


@pytest.mark.slow
def test_each_teacher_sees_images_of_the_other_rank(ranks):
    keys = views(BATCH).views[1].flatten(1)
    whose = []
    for rank in ranks:
        equal = rank["teacher_inputs"].flatten(1)[:, None] == keys
        whose.append(equal.all(2).int().argmax(1))
        assert equal.all(2).any(1).all()
    assert sorted(torch.cat(whose).tolist()) == list(range(BATCH))
    assert (whose[0] >= BATCH // 2).any() and (whose[1] < BATCH // 2).any()


@pytest.mark.slow
def test_key_views_are_augmented_as_at_home_and_the_records_stay(ranks):
    """Shuffled as bytes together with what was drawn for them, then augmented elsewhere."""
    raw = raw_views()
    whole = ViewPreprocessor()(raw)["batch"]
    order = BatchShuffle(BATCH, seed=0).there.flatten()
    assert not torch.equal(order, torch.arange(BATCH))
    parts = [rank["shuffled_bytes"] for rank in ranks]
    assert torch.equal(torch.cat([part.views[0] for part in parts]), whole.views[0])
    assert torch.equal(torch.cat([part.views[1] for part in parts]), whole.views[1][order])
    for number, record in enumerate(raw.unpack().records):
        for field, values in record._asdict().items():
            found = torch.cat([getattr(part.records[number], field) for part in parts])
            assert torch.equal(found, values), field


@pytest.mark.slow
def test_broken_images_that_another_rank_met_are_named_too(ranks):
    said = ranks[0]["naming"]
    assert [line.partition(";")[0] for line in said[:-1]] == [f"cannot read {n}" for n in (3, 6, 7)]
    assert said[-1] == "of the images seen so far 3 cannot be read"


def launch(script: str, *args: str, cwd: Path, python: str = sys.executable) -> subprocess.Popen:
    return subprocess.Popen(
        ["bash", str(REPO / "tools" / script), *args],
        cwd=cwd,
        env={**os.environ, "PYTHON": python, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_a_distributed_run_is_stopped_and_resumed_through_the_tool(tmp_path):
    """dist_train.sh from another folder on two CPU processes; SIGTERM goes to torchrun."""
    config = write_config(tmp_path / "c.py", write_images(tmp_path / "images", 32))
    command = ["dist_train.sh", str(config), "2", "--work-dir", str(tmp_path / "run")]
    options = ["--cfg-options", "train_dataloader.num_workers=1"]
    epochs = "train_cfg.max_epochs=1000"
    process = launch(*command, *options, epochs, cwd=tmp_path)
    log = []
    for line in process.stdout:
        log.append(line)
        if "Epoch(train)" in line:
            process.send_signal(signal.SIGTERM)
            break
    log.append(process.communicate(timeout=60)[0])
    last = Path((tmp_path / "run" / "last_checkpoint").read_text())
    assert last.name.startswith("step_"), "".join(log)
    loaded = load_checkpoint(last)
    assert loaded["meta"]["order"]["images_per_step"] == 8
    assert loaded["optimizer"]["param_groups"][0]["initial_lr"] == pytest.approx(0.001 * 8 / 256)

    steps = loaded["meta"]["iter"] + 6
    process = launch(
        *command, "--resume", *options, epochs, f"train_cfg.max_steps={steps}", cwd=tmp_path
    )
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    assert load_checkpoint(tmp_path / "run" / f"step_{steps}.pth")["meta"]["step"] == steps


@pytest.mark.slow
def test_ranks_with_other_images_are_told_instead_of_waiting(tmp_path):
    for rank, number in ((0, 24), (1, 16)):
        write_images(tmp_path / f"images{rank}", number)
    config = write_config(tmp_path / "c.py", tmp_path / "images0")
    config.write_text(config.read_text().replace("images0", "images{{$RANK:0}}"))
    process = launch("dist_train.sh", str(config), "2", "--work-dir", "run", cwd=tmp_path)
    said, _ = process.communicate(timeout=120)
    assert process.returncode and "do not find the same images" in said


def test_the_shell_tools_start_torchrun(tmp_path):
    """With stand-ins for Slurm and for Python, which prints its arguments."""
    for name, text in {
        "srun": 'echo "$@"; while [ "$1" != bash ]; do shift; done; exec "$@"',
        "scontrol": "echo node7; echo node8",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ,
        **dict(PATH=f"{tmp_path}:{os.environ['PATH']}", PYTHON="echo", GPUS_PER_NODE="4"),
        **dict(SLURM_NNODES="2", SLURM_JOB_ID="30005", SLURM_JOB_NODELIST="node[7-8]"),
    }

    def output(script: str, *args: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", str(REPO / "tools" / script), *args],
            env=environment,
            cwd=tmp_path,
            text=True,
            capture_output=True,
        )
        return done.returncode, done.stdout + done.stderr

    signals = "--signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2"
    train = f"{signals} {REPO}/tools/train.py some.py --launcher pytorch --seed 3"
    code, text = output("dist_train.sh", "some.py", "4", "--seed", "3")
    assert code == 0
    assert text == f"-m torch.distributed.run --standalone --nproc-per-node 4 {train}\n"
    code, text = output("slurm_train.sh", "gpu", "job", "some.py", "8", "--seed", "3")
    assert code == 0
    assert "--partition gpu --job-name job --nodes 2 --ntasks-per-node 1 --gres gpu:4" in text
    assert text.endswith(
        "-m torch.distributed.run --nnodes 2 --rdzv-id 30005 --rdzv-backend c10d "
        f"--rdzv-endpoint node7:20005 --nproc-per-node 4 {train}\n"
    )
    code, text = output("slurm_train.sh", "gpu", "job", "some.py", "6")
    assert code == 2 and "6 GPUs do not divide into nodes of 4" in text
    for script in ("dist_train.sh", "slurm_train.sh"):
        code, text = output(script)
        assert code == 2 and text.startswith("usage:") and "CONFIG GPUS" in text
