"""benchmarks/evidence: the answers' statistics, the questions' differences, the order of trainings, the typefaces."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "evidence"))

import arms
import intervals
import page
import run
import schedule

IMAGES = 4000


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 1999)


def results(**top1: list[float]) -> dict[str, dict[int, Any]]:
    """Arms of these top-1 by seed; what is right for less is right for more, so that images are paired."""
    order = np.random.default_rng(1).permutation(IMAGES)
    return {
        arm: {seed: order < IMAGES * value / 100 for seed, value in enumerate(values)} for arm, values in top1.items()
    }


NOISE = [0.0, 0.2, -0.1, 0.1, -0.2]


def shifted(points: float) -> list[float]:
    return [70 + points + noise for noise in NOISE]


def test_interval_over_seeds_is_students_t_where_it_is_the_wider() -> None:
    found = intervals.difference({"a": 1, "b": -1}, results(a=[70, 72, 74, 71, 73], b=[70, 70, 70, 70, 70]))
    theirs = stats.ttest_1samp(found.by_seed, 0).confidence_interval(0.95)
    assert found.mean == pytest.approx(2.0)
    assert found.interval() == pytest.approx((theirs.low, theirs.high))


def test_interval_over_images_is_taken_where_it_is_the_wider() -> None:
    found = intervals.difference({"a": 1, "b": -1}, results(a=[72] * 4 + [72.025], b=[70] * 5))
    error = found.by_image.std() / np.sqrt(IMAGES)
    assert found.interval() == pytest.approx((2.005 - 1.96 * error, 2.005 + 1.96 * error), abs=0.05)


def test_fewer_than_two_common_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two seeds"):
        intervals.difference({"a": 1, "b": -1}, {**results(a=[70, 71]), "b": {1: np.ones(IMAGES, bool)}})


@pytest.mark.parametrize(("points", "swapped", "verdict"), [
    (3.0, False, "for"), (3.0, True, "against"), (-3.0, False, "against"), (-3.0, True, "for"),
    (0.45, False, "not decided"),
])  # fmt: skip
def test_verdict(points: float, swapped: bool, verdict: str) -> None:
    known = results(a=shifted(points), b=[70] * 5)
    (found,) = intervals.answers([([intervals.difference({"a": 1, "b": -1}, known)], swapped)], family=12)
    assert found.verdict == verdict


def test_all_differences_of_a_question_must_hold() -> None:
    known = results(a=shifted(3.0), b=[70] * 5, c=[72.0, 73.5, 72.6, 73.0, 72.4])
    both = [intervals.difference({"a": 1, other: -1}, known) for other in "bc"]
    found = intervals.answers([(both[:1], False), (both, False)], family=2)
    assert [one.verdict for one in found] == ["for", "not decided"]


def test_correction_is_holms() -> None:
    known = results(b=[70] * 5, **{f"a{at}": shifted(0.8 + at) for at in range(3)})
    differences = [intervals.difference({f"a{at}": 1, "b": -1}, known) for at in range(3)]
    found = intervals.answers([([one], False) for one in differences], family=3)
    raw = np.array([one.above(0.0) for one in differences])
    order = np.argsort(raw, kind="stable")
    holm = np.minimum(1, np.maximum.accumulate(raw[order] * [3, 2, 1]))
    assert [found[at].p for at in order] == pytest.approx(holm)
    assert [found[at].level for at in order] == pytest.approx([0.05 / 3, 0.05 / 2, 0.05])


def test_there_are_the_plans_twelve_questions_of_arms_that_are_trained() -> None:
    counts = [sum(one.name == f"Q{number}" for one in arms.QUESTIONS) for number in range(1, 7)]
    assert counts == [3, 2, 2, 2, 1, 2]
    trained = {*arms.ARMS, *(f"{arm}@compute" for arm in arms.LONGER)}
    assert {arm for one in arms.QUESTIONS for arm in one.arms} <= trained
    assert all(sum(one.values()) == 0 for question in arms.QUESTIONS for one in question.contrasts)


def line(cell: schedule.Cell, **more: Any) -> dict[str, Any]:
    about = {"key": cell.key, "study": cell.study, "phase": cell.phase, "arm": cell.arm, "seed": cell.seed}
    seconds = 370.0 if cell.phase == "ceiling" else 100.0
    return {**about, "cpu_seconds": seconds, "choose": 50.0, "test": 50.0, **more}


def played(until: str = "") -> list[schedule.Cell]:
    """The order in which one process trains: the first that is ready, as long as there is one."""
    cells, lines, order = schedule.cells_of("letters"), dict[str, Any](), list[schedule.Cell]()
    while cell := next((one for one in cells if one.key not in lines and not schedule.needless(one, lines)
                        and schedule.ready(one, lines)), None):  # fmt: skip
        order.append(cell)
        lines[cell.key] = line(cell, test=60.0 if cell.phase == "teacher" else 50.0)
        if cell.key == until:
            break
    return order


def test_all_is_trained_once_and_seeds_are_balanced() -> None:
    order = played()
    arms_and_ideas = len(arms.arms_of("letters")) + len(arms.IDEAS)
    long = len(arms.LONG) * len(arms.LONG_SEEDS)
    short = 3 * arms_and_ideas + 5 * (arms_and_ideas + len(arms.LONGER))
    assert len(order) == len(set(order)) == 1 + 1 + 6 + long + short
    asked = {arm for question in arms.QUESTIONS for arm in question.arms}
    seeds = [cell for cell in order if cell.phase == "seed" and cell.arm != "plain:labels"]
    first = seeds[: 5 * sum(arm in asked for arm in arms.ARMS) - 5]
    assert {cell.arm for cell in first} == asked & set(arms.ARMS) - {"plain:labels"}
    assert [cell.seed for cell in first] == sorted(cell.seed for cell in first)
    assert {cell.arm for cell in order[-5 * len(arms.IDEAS) :]} == set(arms.IDEAS)


def test_a_teacher_below_the_ceiling_is_tried_again_and_then_given_up() -> None:
    lines = {cell.key: line(cell) for cell in schedule.cells_of("letters") if cell.phase in ("ceiling", "teacher")}
    assert schedule.passed("letters", lines) is None
    left = [
        cell for cell in schedule.cells_of("letters") if cell.key not in lines and not schedule.needless(cell, lines)
    ]
    assert left
    assert not any(arms.needs_teacher(cell.arm) for cell in left)
    second = schedule.Cell("letters", "teacher", "try-1")
    del lines[second.key]
    assert schedule.ready(second, lines)


def test_best_rate_is_that_of_the_choosing_images() -> None:
    tune = {factor: schedule.Cell("letters", "tune", "lift:soft", 100, factor) for factor in arms.FACTORS}
    lines = {cell.key: line(cell, choose=40 + factor) for factor, cell in tune.items()}
    assert schedule.best_factor("letters", "lift:soft", lines) == 2.0
    del lines[tune[0.5].key]
    assert schedule.best_factor("letters", "lift:soft", lines) is None


def test_a_claim_is_one_processs_and_a_cut_line_is_left_out(tmp_path: Path) -> None:
    with run.claimed(tmp_path, "one") as first, run.claimed(tmp_path, "one") as second:
        assert (first, second) == (True, False)
    lines = run.Lines(tmp_path / "arms.jsonl")
    lines.append({"key": "a"})
    with lines.path.open("a") as file:
        file.write('{"key": "b", "test')
    lines.append({"key": "c"})
    assert list(lines.read()) == ["a", "c"]


def test_pages_come_from_the_lines_and_tell_what_is_missing() -> None:
    from vitcompress.core.bits import packed

    random = np.random.default_rng(0)
    lines: dict[str, Any] = {}
    more = {"parameters": 1, "factor": 1.0, "epochs": 1, "took_seconds": 3600.0, "at": "now", "commit": "c", "width": 9}
    for cell in played():
        right = random.random(500) < (0.8 if cell.arm.startswith("lift:soft+") else 0.6)
        judged = {"right": packed(right), "test_images": 500, "machine": "m", "images": 7, **more}
        lines[cell.key] = line(cell, **judged, test=100 * right.mean())
    teacher = schedule.Cell("fashion", "teacher", "try-0")
    lines[teacher.key] = line(teacher, machine="m", images=7, test=80.0, choose=80.0, **more)
    drawn: list[str] = []
    found = page.pages(lines, lambda study, asked: drawn.append(study))
    assert set(found) == {
        "evidence.md",
        *(f"evidence/{kind}-{name}.md" for kind in ("arms", "long") for name in ("fashion", "letters")),
    }
    assert "Not begun: fashion-vit, drawings, drawings-vit." in found["evidence.md"]
    assert drawn == ["letters"]
    assert "Ceiling: not measured" in found["evidence/arms-fashion.md"]
    rows = [row for row in found["evidence/arms-letters.md"].splitlines() if row.startswith("| Q3 | lift")]
    assert "**for**" in rows[0]
    rows = [row for row in found["evidence/long-letters.md"].splitlines() if row.startswith("| Q3 | lift")]
    assert "lift:soft+spectral@long - plain:soft@long" in rows[0]
    assert "**for**" in rows[0]
    assert "| letters, 40 epochs |" in found["evidence.md"]
    del lines[schedule.Cell("letters", "seed", "lift:soft+spectral", 4).key]
    without = page.pages(lines, lambda study, asked: None)["evidence/arms-letters.md"]
    assert "not measured: lift:soft+spectral (4 of 5 seeds)" in without
    assert all(len(text.split()) < 1500 for text in found.values())


def test_equal_seconds_leave_out_the_start_and_follow_the_longer_student() -> None:
    study, seed = "imagenet100", arms.TUNING_SEED
    cell = schedule.Cell(study, "compute", "plain:labels")
    known = {
        schedule.Cell(study, "live", arm, seed, 1.0): one
        for arm, one in zip(arms.LIVE, (290.0, 310.0, 110.0, 250.0, 110.0, 160.0), strict=True)
    }
    known |= {
        schedule.Cell(study, "tune", "plain:labels", seed, 1.0): 55.0,  # on a machine that was twice as fast
        schedule.Cell(study, "ceiling", "plain:labels"): 205.0,
    }
    lines = {one.key: line(one, seconds=seconds, cpu_seconds=9.0) for one, seconds in known.items()}
    assert schedule.longer(cell, lines) == 300, "10 s to start, then 1 s an epoch"
    assert schedule.longer(schedule.Cell(study, "compute", "plain:soft"), lines) == 125
    assert schedule.longer(schedule.Cell(study, "compute", "uniform:labels"), lines) == 200
    del lines[schedule.Cell(study, "live", arms.LIVE[1], seed, 1.0).key]
    assert schedule.longer(cell, lines) is None
    assert not schedule.Cell(study, "seed", "plain:soft").cached
    assert schedule.Cell("letters", "seed", "plain:soft").cached


def test_what_depends_on_the_teachers_width_waits_for_it() -> None:
    order = [cell.key for cell in played()]
    passing = order.index(schedule.Cell("letters", "teacher", "try-0").key)
    assert order.index(schedule.Cell("letters", "tune", "lift:labels", 100, 1.0).key) > passing
    cell = schedule.Cell("letters", "tune", "lift:labels", 100, 1.0)
    assert not schedule.ready(cell, {})
    assert schedule.ready(schedule.Cell("letters", "tune", "plain:labels", 100, 1.0), {})


def test_results_of_two_teachers_are_not_mixed() -> None:
    cells = [schedule.Cell("letters", "seed", "plain:soft", seed) for seed in (0, 1)]
    lines = {cell.key: line(cell, right="", test_images=0, teacher=str(cell.seed), images=1) for cell in cells}
    with pytest.raises(click.ClickException, match="two teachers"):
        page.results_of("letters", lines)


def test_a_published_teacher_is_taken_where_none_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainings import weights_of

    monkeypatch.setattr(run, "TEACHERS", tmp_path / "published" / "teachers")
    monkeypatch.setattr(run, "RESULTS", tmp_path / "published" / "arms.jsonl")
    mine = weights_of(tmp_path, "letters", 0)
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"weights")
    lines = run.Lines(tmp_path / "arms.jsonl")
    lines.append(line(schedule.Cell("letters", "teacher", "try-0"), test=60.0))
    run.published(tmp_path, lines)  # before the ceiling is known
    assert run.Lines(run.RESULTS).read() == lines.read()
    assert weights_of(tmp_path, "letters", 0) == mine
    assert weights_of(tmp_path / "other", "letters", 0).read_bytes() == b"weights"
    lines.append(line(schedule.Cell("letters", "ceiling", "plain:labels"), test=50.0))
    lines.append(line(schedule.Cell("letters", "teacher", "try-1"), test=61.0))
    other = weights_of(tmp_path, "letters", 1)
    other.parent.mkdir(parents=True)
    other.write_bytes(b"not needed")
    run.published(tmp_path, lines)
    assert [path.name for path in run.TEACHERS.iterdir()] == ["letters-try-0.safetensors"], "the first that passed"


def test_finished_trainings_leave_no_copies(tmp_path: Path) -> None:
    cells = [cell for cell in schedule.cells_of("fashion") if cell.seed == 3]
    for cell in cells:
        (tmp_path / "runs" / cell.folder / "teacher").mkdir(parents=True)
    for name in ("fashion-3", "fashion-3-rising", "fashion-30"):
        (tmp_path / "cache" / name).mkdir(parents=True)
    lines = {cell.key: line(cell) for cell in cells if cell.arm != "plain:soft+rising"}
    run.tidy(tmp_path, cells[0], lines)
    assert not (tmp_path / "runs" / cells[0].folder / "teacher").exists()
    assert (tmp_path / "runs" / cells[1].folder / "teacher").exists()
    kept = {path.name for path in (tmp_path / "cache").iterdir()}
    assert kept == {"fashion-3-rising", "fashion-30"}, "an idea reads its own still"
    run.tidy(tmp_path, cells[-1], lines | {cell.key: line(cell) for cell in cells})
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["fashion-30"]


def test_long_trainings_follow_their_settings_and_keep_answers_of_their_own() -> None:
    cells = schedule.cells_of("fashion")
    long = [cell for cell in cells if cell.phase == "long"]
    assert {(cell.arm, cell.seed) for cell in long} == {(arm, seed) for arm in arms.LONG for seed in arms.LONG_SEEDS}
    assert [cell.seed for cell in long] == sorted(cell.seed for cell in long)
    assert not [cell for cell in schedule.cells_of("drawings") if cell.phase == "long"]
    lines = {cell.key: line(cell) for cell in cells if cell.phase in ("teacher", "ceiling", "tune")}
    lines[schedule.Cell("fashion", "teacher", "try-0").key]["test"] = 90.0
    first = schedule.Cell("fashion", "long", schedule.LEADER)
    other = schedule.Cell("fashion", "long", "plain:soft")
    assert (first.answers, other.answers) == ("fashion-0-long",) * 2
    assert schedule.ready(first, lines)
    assert not schedule.ready(other, lines)
    assert schedule.ready(other, lines | {first.key: line(first)})
    assert schedule.expected(other, lines) == pytest.approx(100 * 43 / 10)
