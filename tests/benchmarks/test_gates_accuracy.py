"""The benchmark of the accuracy check, with small numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gates_accuracy import LOSS, TOLERANCE, discordance, fails, loss, main, markdown, outcomes, power, row


def test_outcomes_have_the_loss_and_the_discordance_asked_for() -> None:
    baseline, new = outcomes(1000, 30, 10)
    assert loss(baseline, new) == pytest.approx(2.0)
    assert discordance(baseline, new) == pytest.approx(4.0)
    assert fails(baseline, new)
    assert not fails(new, baseline)
    assert not fails(baseline, baseline)


@pytest.mark.parametrize(("lost", "discordant"), [(1.0, 4.0), (0.0, 5.0), (3.0, 6.0)])
def test_power_is_the_share_of_simulated_tries_that_fail(lost: float, discordant: float) -> None:
    images, tries = 400, 2000
    p, q = (discordant + lost) / 200, (discordant - lost) / 200
    tables = np.random.default_rng(0).multinomial(images, [p, q, 1 - p - q], size=tries)
    simulated = np.mean([fails(*outcomes(images, int(b), int(c))) for b, c, _ in tables])
    exact = power(images, lost, discordant)
    assert simulated == pytest.approx(exact, abs=4 * np.sqrt(max(exact * (1 - exact), 1e-3) / tries))


def test_where_nothing_is_lost_about_one_in_a_hundred_fails() -> None:
    assert [power(10_000, 0.0, percent) < 0.0105 for percent in (2.0, 8.0)] == [True, True]


def test_a_row_has_the_exact_interval_of_its_rate() -> None:
    found = row("the same model", "at most 1 %", 0, 200)
    assert (found["rate"], found["low"]) == (0.0, 0.0)
    assert found["high"] == pytest.approx(100 * (1 - 0.025 ** (1 / 200)))  # (1 - p)^200 = 2.5 %


@pytest.mark.sweep
def test_a_quick_run_prints_and_writes_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick", "--json", str(tmp_path / "new" / "found.json")])
    found = json.loads((tmp_path / "new" / "found.json").read_text())
    assert markdown(found) in capsys.readouterr().out
    assert abs(found["loss"]["damaged"] - LOSS) <= TOLERANCE
    assert found["images"] >= found["sizes"]["pool"]
    same, *_, damaged = found["rows"]
    assert same["failed"] == 0
    assert damaged["tries"] == found["sizes"]["worse"]
    assert all(each["low"] <= each["rate"] <= each["high"] for each in found["rows"])
