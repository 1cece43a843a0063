"""Summaries against numpy, verdicts against cases computed by hand."""

import numpy as np
import pytest

from densessl.transfer.summary import (
    duration,
    findings,
    percent,
    provenance,
    summarise,
    verdict,
)
from tests.transfer.fake_results import detector_result, fake_result, segmenter_result

pytestmark = pytest.mark.slow


def test_summarise_equals_numpy_over_the_seeds():
    result = detector_result()
    rows = {(row.init, row.label_fraction): row for row in summarise(result)}
    assert list(rows) == [(n, f) for n in ("densecl", "moco", "random") for f in (0.1, 1.0)]
    for (init, fraction), row in rows.items():
        for metric in result["metrics"]:
            values = [
                run["metrics"][metric]
                for run in result["runs"]
                if run["init"] == init and run["label_fraction"] == fraction
            ]
            score = row.scores[metric]
            assert score.n == 2
            assert score.mean == pytest.approx(np.mean(values), abs=1e-12)
            assert score.std == pytest.approx(np.std(values, ddof=1), abs=1e-12)
        assert row.train_images == round(240 * fraction)


def test_summarise_leaves_out_failed_runs_and_values_that_are_not_numbers():
    result = segmenter_result()
    result["runs"][0].update(status="failed", error="out of memory", metrics={"mIoU": 99.0})
    result["runs"][3]["metrics"]["mIoU"] = float("nan")
    densecl, random = summarise(result)
    assert densecl.scores["mIoU"].values == (42.0,) and densecl.failed == 1
    assert random.scores["mIoU"].values == (44.0,) and random.failed == 0
    assert random.scores["mAcc"].n == 2
    assert str(densecl.scores["mIoU"]) == "42.0"


# --- verdict -------------------------------------------------------------------------------------


def _two(a: list[float], b: list[float]) -> str:
    scores = {("densecl", 1.0): a, ("random", 1.0): b}
    return verdict(fake_result("detection", ["AP", "AP50"], scores))


def test_verdict_of_a_clear_gain():
    # deviations .849 and 1.131, pooled error of the difference 1.0, difference 7.0 > 4.303 errors
    assert _two([31.2, 32.4], [24.0, 25.6]) == (
        "Detector: densecl 31.8 ± 0.8 AP against random 24.8 ± 1.1 (2 seeds): "
        "+7.0 points (95 %: +2.7 to +11.3), it helped."
    )


def test_verdict_of_a_loss_says_that_it_hurt():
    assert _two([20.0, 20.2], [24.0, 24.2]).endswith("−4.0 points (95 %: −4.6 to −3.4), it hurt.")


def test_verdict_between_noise_and_certainty_says_probably():
    # both deviations 1.414, pooled error 1.414: 4.0 lies between 2 x 1.414 and 4.3 x 1.414
    assert _two([28.0, 30.0], [24.0, 26.0]).endswith(
        "+4.0 points (95 %: −2.1 to +10.1), it probably helped (too few seeds to be sure)."
    )


@pytest.mark.parametrize(("gain", "noise"), [(2.82, True), (2.84, False)])
def test_the_border_of_noise_is_two_pooled_standard_errors(gain, noise):
    text = _two([24.0 + gain, 26.0 + gain], [24.0, 26.0])
    assert ("within seed noise" in text) == noise


def test_five_seeds_pool_their_variances():
    a, b = [30.0, 31, 32, 33, 34], [28.0, 29, 30, 31, 32]
    error = np.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / 2 * (1 / 5 + 1 / 5))
    assert 2 * error == pytest.approx(2.0)  # the difference is 2.0: at the border, not below it
    assert "probably helped" in _two(a, b)
    assert "within seed noise" in _two(a, [v + 0.01 for v in b])


def test_one_seed_allows_no_statement_about_noise():
    assert _two([31.2], [24.9]) == (
        "Detector: densecl 31.2 AP against random 24.9 (one seed): "
        "+6.3 points, one seed: no statement about noise possible."
    )
    for a, b, seeds in (([31.2, 31.4], [24.9], "2 and one seed"), ([31.2], [24.9, 25], "1 and 2")):
        text = _two(a, b)
        assert f"({seeds}" in text and text.endswith("no statement about noise possible.")


def test_equal_scores_are_noise_and_zero_has_no_minus():
    for a, b in (([30.0, 30.0], [30.0, 30.0]), ([29.0, 30.98], [29.0, 31.0])):
        assert ": +0.0 points (95 %: " in _two(a, b) and _two(a, b).endswith("within seed noise.")


def test_less_than_a_pretrained_baseline_is_worse_and_not_harm():
    scores = {("supervised", 1.0): [53.0, 53.2], ("densecl", 1.0): [50.0, 50.2]}
    text = verdict(fake_result("detection", ["AP"], scores))
    assert "−3.0 points" in text and text.endswith("it is worse.")


def test_masks_are_judged_beside_boxes():
    scores = {("densecl", 1.0): [31.2, 32.4], ("random", 1.0): [24.0, 25.6]}
    result = fake_result("instance", ["box_AP", "box_AP50", "mask_AP", "mask_AP50"], scores)
    for run in result["runs"]:
        run["metrics"]["mask_AP"] = 50 - run["metrics"]["box_AP"]
    boxes, masks = findings(result)
    assert "box AP against" in boxes and boxes.endswith("it helped.")
    assert "mask AP against" in masks and masks.endswith("it hurt.")


def test_runs_of_several_machines_and_days_are_all_named():
    result = segmenter_result()
    assert provenance(result)["commit"] == "0123abc" and "command" not in provenance(result)
    made = (("a1", "2025-02-02"), ("b2", "2025-02-01"), ("a1", "2025-02-03"))
    for run, (commit, date) in zip(result["runs"], made, strict=False):
        run["environment"] = dict(
            commit=commit, hardware="2 cores", versions={"torch": "2.11"}, date=date
        )
    del result["runs"][3]["environment"]  # as earlier versions wrote it
    assert provenance(result) == {
        "commit": "a1; b2",
        "hardware": "2 cores",
        "versions": "torch 2.11",
        "not recorded": "for 1 of 4 runs",
        "date": "2025-02-01 to 2025-02-03",
    }


def test_verdict_over_fractions_and_inits_starts_with_all_labels():
    text = verdict(detector_result())
    assert text.startswith("Detector: densecl 31.8 ± 0.8 AP against random 24.8")
    assert ". With 10 % of the labels, densecl 12.5 ± 0.7 AP against random 4.5 ± 0.7" in text
    assert text.count("against random") == 4


def test_verdict_names_failures_and_missing_partners():
    result = segmenter_result()
    for run in result["runs"]:
        if run["init"] == "random":
            run.update(status="failed", error="boom", metrics={})
    assert verdict(result) == (
        "Segmenter: no run from random finished, nothing to compare. 2 of 4 runs failed."
    )
    alone = fake_result("segmentation", ["mIoU"], {("densecl", 1.0): [40.0]})
    assert verdict(alone) == (
        "Segmenter: densecl 40.0 mIoU (one seed), nothing to compare it with."
    )


@pytest.mark.parametrize("inits", [["densecl"], ["densecl", "random"]])
def test_an_instance_segmenter_without_runs_says_so_once(inits):
    scores = {(init, 1.0): [31.2] for init in inits}
    result = fake_result("instance", ["box_AP", "mask_AP"], scores)
    for run in result["runs"]:
        run.update(status="failed", error="boom", metrics={})
    assert verdict(result).count("finished") == 1


def test_percent_and_duration():
    assert [percent(f) for f in (1.0, 0.1, 0.005)] == ["100 %", "10 %", "0.5 %"]
    assert [duration(s) for s in (None, 5.4, 200, 3900)] == ["–", "5 s", "3 min 20 s", "1 h 5 min"]
