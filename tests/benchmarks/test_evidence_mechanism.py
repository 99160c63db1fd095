"""benchmarks/evidence: what the mechanism is measured with, on features and pairs whose answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evidence import speed
from evidence.mechanism_page import page
from evidence.premise import premise
from evidence.similarity import advice_score, cka, gram_of, rank_correlation
from scipy import stats

RANDOM = np.random.default_rng(0)


def test_cka_does_not_see_rotation_scale_and_shift() -> None:
    features = RANDOM.standard_normal((60, 5, 8))
    turn, _ = np.linalg.qr(RANDOM.standard_normal((40, 40)))
    turned = 7.0 * features.reshape(60, 40) @ turn + 3.0
    assert cka(gram_of(features), gram_of(features)) == pytest.approx(1.0, abs=1e-12)
    assert cka(gram_of(features), gram_of(turned)) == pytest.approx(1.0, abs=1e-9)
    other = features.reshape(60, 40) + RANDOM.standard_normal((60, 40))
    assert cka(gram_of(other), gram_of(features)) == pytest.approx(cka(gram_of(other), gram_of(turned)), abs=1e-9)


def test_cka_of_independent_features_is_near_zero_however_wide_they_are() -> None:
    found = [
        cka(gram_of(RANDOM.standard_normal((100, 400))), gram_of(RANDOM.standard_normal((100, 600)))) for _ in range(20)
    ]
    assert abs(np.mean(found)) < 0.02  # the estimator with bias gives 0.8 here
    assert max(map(abs, found)) < 0.1


def test_cka_of_half_the_variance_is_known() -> None:
    shared, own = RANDOM.standard_normal((2, 4000, 3))
    both = np.concatenate([shared, own], axis=1)  # HSIC 3, of itself 3 and 6: 3 / sqrt(18)
    assert cka(gram_of(shared), gram_of(both)) == pytest.approx(3 / np.sqrt(18), abs=0.03)
    assert np.isnan(cka(gram_of(np.ones((9, 2))), gram_of(shared[:9])))


def test_rank_correlation_is_spearmans_with_an_interval_around_it() -> None:
    one = RANDOM.standard_normal(24).round(1)  # with ties
    other = one + RANDOM.standard_normal(24)
    value, low, high = rank_correlation(one, other)
    assert value == pytest.approx(stats.spearmanr(one, other).statistic)
    assert -1 <= low < value < high <= 1
    assert rank_correlation(one, np.exp(one))[:2] == pytest.approx((1.0, 1.0))


def test_advice_is_right_where_it_chose_the_winner_and_loses_the_difference_elsewhere() -> None:
    found = advice_score(np.array([2.0, -1.0, 3.0, -2.0]), np.array([True, True, False, False]))
    assert found["right"] == 0.5
    assert found["low"] == pytest.approx(stats.beta.ppf(0.025, 2, 3))
    assert (found["lost"], found["lost, always lift"], found["lost, always plain"]) == (1.0, 0.75, 1.25)


@pytest.mark.parametrize(
    ("most", "all_but", "verdict"), [(20, 48, "not met"), (48, 49, "met in part"), (49, 60, "met.")]
)
def test_the_premise_is_judged_by_the_directions_that_students_lack(most: int, all_but: int, verdict: str) -> None:
    taps = [{"pca_rank": {"95": 1, "99": 2}}, {"pca_rank": {"95": float(most), "99": float(all_but)}}]
    line = {"kind": "teacher", "study": "letters", "teacher": "try-0", "width": 144, "taps": taps}
    others = [{"kind": "student"}, {**line, "teacher": 96}]
    told = premise([*others, line]).splitlines()
    assert len(told) == 5
    assert told[2].startswith(f"- letters: {most} ({all_but}) of 144: {verdict}")
    assert premise(others) == ""


def test_the_page_pairs_students_by_seed_and_says_what_the_plan_asks(tmp_path: Path) -> None:
    about = {"study": "letters", "teacher": 96, "seconds": 1.0, "commit": "c", "machine": "m"}
    lines: list[dict[str, Any]] = []
    for width, gain in ((16, 3.0), (24, 2.0), (32, 1.0), (48, 0.0), (64, -2.0), (96, -3.0)):
        advice = "lift" if width < 32 else "plain"  # wrong at 32
        lines.append({"kind": "advice", "width": width, "d95": {"raw": 40.0}, "advice": advice, **about})
        for seed, strategy, test in (
            (0, "soft", 66.0),
            (1, "soft", 57.0 + gain),
            (0, "plain", 70.0),
            (1, "plain", 60.0),
            (1, "lift", 61.0 + gain),
            (2, "lift", 0.0),
        ):
            trained = {"width": width, "strategy": strategy, "seed": seed, "test": test - 1.0 * (strategy == "lift")}
            lines.append({"kind": "pair", "epochs": 5, **trained, **about})
    told = page(lines, tmp_path)
    assert "raw 1.00 [1.00, 1.00]. The plan's is raw. It holds." in " ".join(told.split())
    assert "Right in 83%" in told
    assert "| letters | 96 | 16 | 40 | lift | +2.00 | 60.00 | 63.00 | +3.00 (+3.0 to +3.0) |" in told
    assert "(-56 to 24 here): Spearman's -1.00 [-1.00, -1.00]." in told
    assert (tmp_path / "mechanism-gain.png").stat().st_size > 10_000


def test_speed_tells_a_machines_latest_run_and_what_no_machine_has() -> None:
    machine = {"processor": "P", "cores": 2, "instructions": ["AVX2", "VNNI"]}
    same = {
        "machine": machine,
        "size": 224,
        "batch": 1,
        "minutes": 1.0,
        "sessions": 5,
        "load": [0.0, 0.0],
        "commit": "c",
    }
    same |= {"versions": dict.fromkeys(("onnxruntime", "openvino", "torch", "timm"), "1")}
    same |= {"network": "plain", "runtime": "onnx", "export": "ours"}
    times = {"precision": "fp32", "bytes": 1, "own": [1.1, 1.0, 1.2], "plain": [1.1, 1.0, 1.2]}
    lines = [{**same, **times, "date": day, "ms": [ms] * 3} for day, ms in (("1", 7.0), ("2", 8.0))]
    told = speed.page([*lines, {**same, "precision": "int8", "date": "2", "reason": "no kernel"}])
    assert "| 8.00 [8.00, 8.00] |" in told
    assert "7.00" not in told
    assert "not made: no kernel" in told
    assert [line for line in told.splitlines() if "measured on P" in line] == [
        "AVX2: not measured on P.",
        "VNNI: measured on P.",
        "AMX: not measured on P.",
    ]
