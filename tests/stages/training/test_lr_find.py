"""A range test finds a rate that trains, and leaves no trace but its answer."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tiny_training import config, cross_entropy, make_job
from torch import nn

from vitcompress.core.context import Context
from vitcompress.stages.training.loop import train
from vitcompress.stages.training.lr_find import HIGHEST, LOWEST, peak_rate, range_test


def bowl(rate: float, best: float = 1e-3) -> float:
    """A loss that falls up to ``best`` and then bursts."""
    return 2.0 - rate / best if rate < best else 1.0 + (rate / best) ** 2


def test_rates_grow_evenly_and_end_where_the_loss_bursts() -> None:
    losses = range_test(bowl)
    rates = list(losses)
    steps = [later / earlier for earlier, later in pairwise(rates)]
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert rates[0] == LOWEST
    assert rates[-1] < HIGHEST
    assert 1e-3 / 10 < peak_rate(losses) < 1e-3
    assert max(range_test(lambda rate: float("nan") if rate > 1e-4 else 1.0)) <= 1e-4
    assert peak_rate({}) == LOWEST


def test_a_training_finds_its_rate_once_and_starts_from_its_first_weights(context: Context) -> None:
    job = make_job(context)
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    seen: list[dict[str, torch.Tensor]] = []

    def watching(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append({name: value.clone() for name, value in job.model.state_dict().items()})
        return cross_entropy(model, images, labels)

    settings = config(lr="find", min_lr=0.0)
    train(replace(job, loss=watching), settings, 1, context)
    tested = len(seen) - 6  # one epoch of 48 images in batches of 8
    assert tested > 10
    assert all(torch.equal(before[name], value) for name, value in seen[tested].items())
    assert any(not torch.equal(before[name], value) for name, value in seen[tested - 1].items())
    kept = (job.folder / "lr.json").read_text()
    assert LOWEST <= json.loads(kept)["rate"] <= HIGHEST
    assert "learning rate of tiny" in context.console.file.getvalue()  # type: ignore[attr-defined]
    seen.clear()
    again = replace(make_job(context), loss=watching, folder=job.folder)
    train(again, settings, 1, context)
    assert len(seen) == 6  # found before, and the checkpoint that ends a training is not kept
    train(replace(again, fingerprint="another"), settings, 1, context)
    assert json.loads((job.folder / "lr.json").read_text())["fingerprint"] == "another"
