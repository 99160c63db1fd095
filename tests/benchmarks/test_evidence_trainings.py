"""benchmarks/evidence: a whole tiny study, the ideas, the strengths of augmentation, the cost on a GPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "evidence"))

import arms
import data
import schedule


def tiny(folder: Path) -> Path:
    """Four classes of noise around a grey of their own."""
    made, random = folder / "tiny", np.random.default_rng(0)
    for part, each in (("train", 16), ("val", 8), ("test", 8)):
        for name in range(4 if not made.joinpath(part).exists() else 0):
            (made / part / str(name)).mkdir(parents=True)
            for index in range(each):
                grey = np.clip(random.normal(50 + 50 * name, 10, (40, 40)), 0, 255).astype(np.uint8)
                Image.fromarray(grey).save(made / part / str(name) / f"{part}{index}.png")
    if not (made / "teacher").exists():
        (made / "teacher").mkdir()
        for part in ("train", "val"):
            (made / "teacher" / part).symlink_to(made / part)
    return made


def test_trainings_of_a_tiny_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trainings

    teacher = {**arms.STUDIES["letters"].tries[0], "epochs": 8, "batch_size": 16, "lr": 0.01, "compile": "off"}
    teacher["args"] = {**teacher["args"], "embed_dim": 96, "num_heads": 6}
    study = replace(arms.STUDIES["letters"], images="tiny", epochs=2, batch=16, tries=(teacher,))
    monkeypatch.setitem(arms.STUDIES, "tiny", study)
    monkeypatch.setitem(data.SETS, "tiny", tiny)
    monkeypatch.setattr(trainings, "BATCH", 16)
    ceiling = schedule.Cell("tiny", "ceiling", "plain:labels")
    lines: dict[str, Any] = {ceiling.key: {"study": "tiny", "test": 0.0, "cpu_seconds": 370.0}}

    def train(phase: str, arm: str, seed: int = 100, factor: float | None = 1.0) -> dict[str, Any]:
        cell = schedule.Cell("tiny", phase, arm, seed, factor)
        assert schedule.ready(cell, lines)
        lines[cell.key] = trainings.carry_out(tmp_path, cell, lines)
        return lines[cell.key]

    assert train("teacher", "try-0", 0, None)["test"] > 50
    labels = train("tune", "plain:labels")
    assert "test" not in labels
    for arm in TINY:
        found = train("tune", arm)
        assert found["cached"]
        assert (tmp_path / "cache" / "tiny-100").is_dir()
    lives = [train("live", arm) for arm in arms.LIVE]
    assert not any(one["cached"] for one in lives)
    for factor in (0.5, 2.0):
        train("tune", "plain:labels", factor=factor)
    longer = train("compute", "plain:labels", 0, None)
    assert longer["epochs"] >= 2
    once, again = (train("seed", "plain:labels", 0, None) for _ in range(2))
    assert once["right"] == again["right"]
    assert longer["test_images"] == 32


TINY = (arms.LIVE[0], "plain:soft+projector", "lift/init:soft+spectral", *arms.IDEAS)


def test_cost_counts_every_training_once() -> None:
    import cost

    found = cost.needs()
    cells = [cell for cell in schedule.cells_of("imagenet100") if cell.phase != "teacher"]
    assert sum(need.trainings for need in found) == len(cells)
    flops = {need.arm: need.work.flops for need in found}
    assert flops["plain:soft"] > 2 * flops["plain:labels"]
    assert flops["ceiling"] == flops["plain:labels"]
    one = cost.Cluster(1, 1, cost.CARDS["L4"])
    assert len(cost.totals(found, [one])) == 3
    assert len(cost.by_arm(found, one)) == 2 + len(found)


def test_a_whitened_target_is_the_leading_directions_with_variance_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ideas

    tokens = torch.randn(50, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    tokens = tokens * torch.tensor([5.0, 0.1, 3.0, 0.2, 0.3, 1.0])[:, None, None] + 7
    sample = SimpleNamespace(batches=lambda *_, **__: [tokens])
    monkeypatch.setattr(ideas, "RunDirectory", SimpleNamespace(existing=lambda _: SimpleNamespace(
        load_record=lambda *_: SimpleNamespace(model=0, weights=0, preprocess=0, depth=1), root=0)))  # fmt: skip
    monkeypatch.setattr(ideas, "build_model", lambda _: 0)
    monkeypatch.setattr(ideas, "load_own", lambda *_: torch.nn.Identity())
    monkeypatch.setattr(ideas, "training_sample", lambda *_: sample)
    monkeypatch.setattr(ideas, "logits_and_taps", lambda _, batch, __: (None, [batch]))
    aligned = ideas.whitening(tmp_path, 2)
    student = torch.randn(50, 2, 4, 4)
    ours, target = aligned(None, student, tokens)  # type: ignore[arg-type]
    flat = target.permute(1, 0, 2, 3).reshape(2, -1)
    assert torch.cov(flat, correction=0) == pytest.approx(torch.eye(2), abs=1e-3)
    widest = tokens[:, 0].flatten()
    assert abs(torch.corrcoef(torch.stack([flat[0], widest]))[0, 1]) > 0.99
    assert ours.shape == target.shape
    assert ours.mean((0, 2, 3)) == pytest.approx(torch.zeros(2), abs=1e-4)


def test_views_rise_in_thirds_and_are_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import ideas

    from vitcompress.stages.images.config import AugmentConfig
    from vitcompress.stages.images.loaders import ViewKey

    monkeypatch.setattr(ideas, "train_transform", lambda augment, _: lambda image: (augment.crop_scale[0], image))
    views = ideas.Rising.makers(9)([("a", 0), ("b", 1)], AugmentConfig(), None, 0)
    assert [views[ViewKey(1, epoch)][0][0] for epoch in range(9)] == [1.0] * 3 + [0.8] * 3 + [0.6] * 3
    assert views[ViewKey(1, 4)] == ((0.8, "b"), 1)


@pytest.mark.parametrize("name", ["gentle", "light", "medium", "strong"])
def test_a_try_is_trained_with_its_strength_whatever_the_rule_says(name: str, tmp_path: Path) -> None:
    import strengths

    from vitcompress.pipeline.config.training import SCHEDULE, TrainingFacts
    from vitcompress.stages.distill.config import DistillConfig

    facts = TrainingFacts(images=1000, parts=1, start="random", parameters=200_000)

    def decided() -> str | None:
        choice = SCHEDULE["augment"](DistillConfig(epochs=300, batch_size=64), facts)
        return choice.shown if choice else None

    one = strengths.Try(1000, 48, 300, 1.0, name)
    before = decided()
    with strengths.decided(one, tmp_path):
        assert decided() == name
        assert (arms.STUDIES["fashion"].epochs, data.SETS["fashion"](tmp_path)) == (300, tmp_path)
    assert decided() == before == "gentle"


def test_softness_is_told_less_labels_alone_and_only_of_whole_rows() -> None:
    import softness

    lines: dict[str, Any] = {
        one.key: {"choose": 70.0 + (one.tau or 0) + one.seed % 100} for one in softness.TRIES if one.tau != 4
    }
    first = softness.TRIES[: len(softness.SETTINGS["fashion"])]
    lines |= {one.key: {"choose": 75.0} for one in first if one.tau == 4}
    assert len({one.key for one in softness.TRIES}) == len(softness.TRIES)
    table = softness.table(lines, "fashion")
    assert table[2] == "| labels alone | | | 70.00 | 71.00 |  |"
    assert "| 0.9 | 2 | replace | 72.00 | 73.00 | +2.00 |" in table
    assert "| 0.9 | 4 | replace | 75.00 | not measured | not measured |" in table
    lines[softness.teacher_of("fashion" + softness.SHARP).key] = {"choose": 80.0, "test": 81.5}
    about = {"cpu_seconds": 1.0, "machine": "m", "commit": "c"}
    text = softness.text_of({key: line | about for key, line in lines.items()}, {})
    assert "fashion, teacher with no label smoothing (81.50 % of *test*):" in text
    assert "fashion, teacher with label smoothing 0.1, the default (not measured)" in text


def test_long_trainings_from_either_teacher_are_compared_seed_by_seed() -> None:
    import softness

    from vitcompress.core.bits import packed

    right = np.arange(400) < 300
    after = {
        one.key: {"test": 84.0 + one.seed, "test_images": 400, "right": packed(np.arange(400) < 336 + 4 * one.seed)}
        for one in softness.LONG
        if one.arm != "plain/init:soft" or one.seed == 0
    }
    before = {
        replace(one, study="fashion").key: {"test": 75.0, "test_images": 400, "right": packed(right)}
        for one in softness.LONG
    }
    labels, soft, lift = softness.long_table(after, before)[2:]
    assert labels.startswith("| plain/init:labels | 0, 1, 2 | 75.00 | 85.00 | +10.00 [")
    assert soft == "| plain/init:soft | 1 | not measured | not measured | not measured |"
    assert lift.startswith("| lift/init:soft+spectral | 0, 1, 2 |")


def test_the_other_teacher_learns_labels_as_they_are_in_a_study_of_its_own() -> None:
    import softness

    with softness.studies():
        for base in softness.SETTINGS:
            [settings] = arms.STUDIES[base + softness.SHARP].tries
            assert settings == arms.STUDIES[base].tries[0] | {"label_smoothing": 0.0}
            assert settings != arms.STUDIES[base].tries[0]
    assert not any(study.endswith(softness.SHARP) for study in arms.STUDIES)


def test_the_best_strength_of_a_row_is_bold_and_what_lacks_is_told() -> None:
    import strengths

    row = [one for one in strengths.TRIES if (one.images, one.width, one.epochs) == (1000, 192, 60)]
    lines = {one.key: {"choose": 70.0 + at, "parameters": 5_376_970} for at, one in enumerate(row)}
    table = strengths.table(lines)
    assert "| 5.38 M | 1,000 | 60 | 70.0 | 71.0 | **72.0** | not measured |" in table
    assert (
        sum("| not measured | not measured | not measured | not measured |" in line for line in table) == len(table) - 3
    )
