"""The harness as a user calls it: tools/transfer.py from labelled folders to results and report."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from PIL import Image

from densessl.models.backbones import build_backbone
from densessl.transfer.finetune import harness, job
from tests.tiny_sets import make_coco, make_mask_folders, make_voc

TOOL = Path(__file__).parents[2] / "tools" / "transfer.py"
spec = importlib.util.spec_from_file_location("transfer_tool", TOOL)
transfer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(transfer)

R18 = dict(type="ResNet", depth=18)
QUICK = [
    "--cfg-options",
    "train_dataloader.batch_size=2",
    "optim_wrapper.optimizer.lr=0.01",
    "custom_hooks.0.num_batches=2",
    "train_cfg.val_interval=2",
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """As pretraining writes it, with an input of its own."""
    torch.manual_seed(0)
    state = {f"backbone.{k}": v for k, v in build_backbone(R18).state_dict().items()}
    inputs = dict(mean=[120.0, 110, 100], std=[60.0, 61, 62], channel_order="RGB")
    meta = dict(format="densessl/1", method="DenseCL", architecture=R18, input=inputs, step=7)
    path = tmp_path_factory.mktemp("pretrained") / "epoch_1.pth"
    torch.save(dict(state_dict=state, meta=meta), path)
    return path


def check_results(folder: Path, metrics: list[str], images: int) -> dict:
    results = json.loads((folder / "results.json").read_text())
    assert results["format"] == "densessl-transfer/1" and results["metrics"] == metrics
    assert {"commit", "hardware", "versions", "command", "date"} <= set(results["environment"])
    for run in results["runs"]:
        assert run["status"] == "done" and run["error"] is None and run["seconds"] > 0
        assert set(run["metrics"]) == set(metrics)
        assert all(0 <= value <= 100 for value in run["metrics"].values())
        assert run["curve"][-1]["iter"] == run["iterations"]
        assert all(point["loss"] > 0 for point in run["loss_curve"])
    drawn = [results["ground_truth"], *(r["predictions"] for r in results["runs"])]
    for paths in drawn[:2]:
        assert len(paths) == images
        for path in paths:
            assert Image.open(folder / path).width >= 320
    assert (folder / "report.html").stat().st_size > 1000
    return results


@pytest.mark.slow
def test_detector_from_a_checkpoint_and_from_random(tmp_path, checkpoint, capsys):
    data, work = make_voc(tmp_path / "set"), tmp_path / "work"
    command = [
        "configs/transfer/detection/faster-rcnn_fpn_small.py",
        *("--init", f"ours={checkpoint}", "--init", "random"),
        *("--data", str(data), "--work-dir", str(work)),
        *("--label-fraction", "0.5", "--iterations", "2", *QUICK),
    ]
    assert transfer.main(command) == 0
    results = check_results(work, ["AP", "AP50", "AP75"], images=4)
    assert results["task"] == "detection" and results["data"]["classes"] == ["disc", "square"]
    assert (results["data"]["train_images"], results["data"]["val_images"]) == (8, 4)
    assert [run["train_images"] for run in results["runs"]] == [4, 4]
    ours, random = results["inits"]
    assert (ours["source"], ours["method"]) == ("epoch_1.pth", "DenseCL")
    count = len(build_backbone(R18).state_dict())
    assert ours["loaded"].startswith(f"{count}/{count} tensors")
    assert random["source"] == "random" and random["method"] is None
    said = capsys.readouterr().out
    assert "[2/2] random, 50 % of the labels, seed 0: done" in said

    # Both got the checkpoint's input.
    for name in ("ours", "random"):
        job = Config.fromfile(work / "runs" / f"{name}_labels0.5_seed0" / "config.py")
        assert job.model.data_preprocessor.mean == [120, 110, 100]

    # The fine-tuned model serves with mmdet's own tools.
    from mmdet.apis import inference_detector, init_detector

    run = work / "runs" / "ours_labels0.5_seed0"
    detector = init_detector(str(run / "config.py"), str(run / "model.pth"), device="cpu")
    found = inference_detector(detector, str(data / "JPEGImages" / "val_0.jpg")).pred_instances
    assert detector.dataset_meta["classes"] == ["disc", "square"] and found.bboxes.shape[1] == 4

    # A second run with the same plan repeats nothing, wherever the folder is.
    work = work.rename(tmp_path / "moved")
    command[command.index("--work-dir") + 1] = str(work)
    before = {path: path.stat().st_mtime_ns for path in work.glob("runs/*/result.json")}
    assert transfer.main(command) == 0
    assert before == {path: path.stat().st_mtime_ns for path in work.glob("runs/*/result.json")}
    assert capsys.readouterr().out.count("done before") == 2
    check_results(work, ["AP", "AP50", "AP75"], images=4)

    # Another plan is refused, and nothing of the old one is touched.
    assert transfer.main([*command, "--seeds", "1"]) == 2
    assert "another comparison" in capsys.readouterr().err

    # So are corrected labels.
    xml = next((data / "Annotations").glob("train*.xml"))
    box = xml.read_text().partition("<xmax>")[2].partition("<")[0]
    xml.write_text(xml.read_text().replace(f"<xmax>{box}", f"<xmax>{int(box) - 1}", 1))
    assert transfer.main(command) == 2
    assert "labels_sha256" in capsys.readouterr().err


@pytest.mark.slow
def test_heads_start_equal_for_every_initialisation(tmp_path, checkpoint):
    from mmengine.registry import MODELS, DefaultScope
    from mmengine.runner import set_random_seed

    from densessl.conversion.export import export_checkpoint
    from densessl.transfer.finetune.configure import load_config
    from densessl.transfer.finetune.inits import load_into, set_init_cfg

    exported = tmp_path / "r18.pth"
    assert export_checkpoint(checkpoint, exported, to="mmdet").passed
    cfg = load_config("faster-rcnn_fpn_small")
    set_init_cfg(cfg.model, None)
    states = []
    for file in (exported, None):
        with DefaultScope.overwrite_default_scope("mmdet"):
            set_random_seed(5)
            model = MODELS.build(cfg.model)
        set_random_seed(5)
        model.init_weights()
        if file:
            load_into(model, torch.load(file)["state_dict"])
        states.append(model.state_dict())
    differing = {key for key in states[0] if not torch.equal(states[0][key], states[1][key])}
    assert differing and all(key.startswith("backbone.") for key in differing)


@pytest.mark.slow
def test_instance_segmenter_on_coco(tmp_path):
    data, work = make_coco(tmp_path / "set"), tmp_path / "work"
    command = ["mask-rcnn_fpn_small", "--init", "random", "--data", str(data)]
    command += ["--work-dir", str(work), "--iterations", "2", *QUICK]
    assert transfer.main(command) == 0
    names = [f"{kind}_{name}" for kind in ("box", "mask") for name in ("AP", "AP50", "AP75")]
    assert check_results(work, names, images=4)["task"] == "instance"


@pytest.mark.slow
def test_segmenter_on_mask_folders(tmp_path):
    data, work = make_mask_folders(tmp_path / "set"), tmp_path / "work"
    command = ["fcn_small", "--init", "random", "--data", str(data)]
    command += ["--work-dir", str(work), "--iterations", "2", *QUICK]
    assert transfer.main(command) == 0
    results = check_results(work, ["mIoU", "mAcc", "aAcc"], images=4)
    assert results["data"]["classes"] == ["background", "class 1", "class 2"]


@pytest.mark.slow
def test_a_failing_job_is_recorded_and_the_exit_code_says_so(tmp_path, capsys):
    data, work = make_mask_folders(tmp_path / "set"), tmp_path / "work"
    command = ["fcn_small", "--init", "random", "--data", str(data), "--work-dir", str(work)]
    command += ["--iterations", "3", *QUICK, "optim_wrapper.optimizer.lr=1e30"]
    assert transfer.main(command) == 1
    (run,) = json.loads((work / "results.json").read_text())["runs"]
    assert run["status"] == "failed" and "loss became" in run["error"]
    assert "lower the learning rate" in capsys.readouterr().err
    assert (work / "report.html").exists()


class Stopped(BaseException):
    """Ends a job as a kill would."""


@pytest.mark.slow
def test_a_job_stopped_in_its_last_evaluation_is_evaluated_when_it_goes_on(tmp_path, monkeypatch):
    data, work = make_mask_folders(tmp_path / "set"), tmp_path / "work"
    config = tmp_path / "fcn.py"
    hook = "dict(type='CheckpointHook', by_epoch=False, interval=2, max_keep_ckpts=2)"
    base = TOOL.parents[1] / "configs" / "transfer" / "segmentation" / "fcn_small.py"
    config.write_text(f"_base_ = '{base}'\ndefault_hooks = dict(checkpoint={hook})\n")
    command = [str(config), "--init", "random", "--data", str(data), "--work-dir", str(work)]
    command += ["--iterations", "4", *QUICK]

    def only_describe(runs, start, jobs, after):
        for run in runs:
            start(run)

    with monkeypatch.context() as patch:
        patch.setattr(harness, "run_all", only_describe)
        transfer.main(command)
    folder = work / "runs" / "random_labels1_seed0"
    description = dict(json.loads((folder / "job.json").read_text()), parent=os.getppid())

    before_val = job.RecordHook.before_val

    def stop(self, runner):
        before_val(self, runner)
        if runner.iter == 4:
            raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(job.RecordHook, "before_val", stop)
        job.run(description)
    assert (folder / "iter_4.pth").exists()
    monkeypatch.setattr(job, "draw_samples", lambda *_: 1 / 0)  # no picture is worth a training
    result = job.run(description)
    assert [point["iter"] for point in result["curve"]] == [2, 4]
    assert result["metrics"]["mIoU"] == result["curve"][-1]["mIoU"]
    assert "predictions" not in result and (folder / "model.pth").exists()
    assert not list(folder.glob("iter_*.pth"))


@pytest.mark.slow
def test_sigterm_stops_the_job_and_exits_with_143(tmp_path):
    data, work = make_mask_folders(tmp_path / "set"), tmp_path / "work"
    command = [sys.executable, str(TOOL), "fcn_small", "--init", "random", "--data", str(data)]
    command += ["--work-dir", str(work), "--iterations", "100000", *QUICK]
    environment = dict(os.environ, PYTHONPATH=str(TOOL.parents[1]))
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    progress = work / "runs" / "random_labels1_seed0" / "progress.json"
    deadline = time.time() + 300
    try:
        while not progress.exists() and time.time() < deadline and process.poll() is None:
            time.sleep(0.2)
        assert progress.exists()
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()  # the job notices and ends itself
    assert process.returncode == 143 and "Finished jobs are kept" in said
    before = progress.read_text()
    time.sleep(2.5)
    assert progress.read_text() == before  # the job itself is gone


BAD = {
    "config": (["faster-rcnn_fpn_smal"], "did you mean 'faster-rcnn_fpn_small.py'"),
    "init without a name": (["fcn_small", "--init", "file.pth"], "has no name"),
    "init twice": (["fcn_small", "--init", "random", "--init", "random"], "given twice"),
    "init missing": (["fcn_small", "--init", "a=nowhere.pth"], "does not exist"),
    "option": (
        ["fcn_small", "--init", "random", "--cfg-options", "optim_wrapper.optimiser.lr=1"],
        "did you mean 'optimizer'",
    ),
    "no data": (["fcn_small", "--init", "random"], "none was given"),
    "data missing": (["fcn_small", "--init", "random", "--data", "nowhere"], "does not exist"),
    "published data missing": (
        ["faster-rcnn_r50-c4_24k_voc0712", "--init", "random", "--data", "."],
        "is not all there",
    ),
    "classes of a published set": (
        ["faster-rcnn_r50-c4_24k_voc0712", "--init", "random", "--classes", "cat"],
        "fixed classes",
    ),
    "fraction": (["fcn_small", "--init", "random", "--label-fraction", "10"], "not in (0, 1]"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_readable_message(case, tmp_path, capsys):
    arguments, message = BAD[case]
    if "--init" not in arguments:
        arguments = [*arguments, "--init", "random"]
    assert transfer.main([*arguments, "--work-dir", str(tmp_path / "work")]) == 2
    said = capsys.readouterr().err
    assert message in said and "What to do:" in said and "Traceback" not in said


@pytest.mark.slow
def test_a_checkpoint_without_a_stage_is_refused_before_training(tmp_path, checkpoint, capsys):
    content = torch.load(checkpoint)
    content["state_dict"] = {
        key: value for key, value in content["state_dict"].items() if ".layer4." not in key
    }
    torch.save(content, tmp_path / "gap.pth")
    command = ["fcn_small", "--init", f"gap={tmp_path / 'gap.pth'}"]
    command += ["--data", str(make_mask_folders(tmp_path / "set"))]
    assert transfer.main([*command, "--work-dir", str(tmp_path / "work")]) == 2
    assert "layer4" in capsys.readouterr().err
    assert not (tmp_path / "work" / "runs").exists()
