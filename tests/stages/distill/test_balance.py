"""Balanced feature losses: where their gradients are compared, and what a training with them leaves behind."""

from __future__ import annotations

import pytest
import torch
from distill_run import config
from small_run import seeded_model, student_spec

from vitcompress.core.context import Context
from vitcompress.stages.distill import stage
from vitcompress.stages.distill.config import FeatureTerm
from vitcompress.stages.distill.job import Inputs
from vitcompress.stages.distill.model import TappedStudent
from vitcompress.stages.distill.pairs import layer_pairs
from vitcompress.stages.models.build import logits_and_taps

BOTH = (FeatureTerm(pairs=((0, 0), (1, 2))), FeatureTerm(kind="mse", pairs=((1, 1),), weight=0.6, match="projector"))


@pytest.mark.parametrize("strategy", ["plain", "lift-kept", "widelast"])
@pytest.mark.parametrize("features", [BOTH, BOTH[1:], ()])
def test_gradients_are_compared_on_a_block_that_every_term_reaches(
    strategy: str, features: tuple[FeatureTerm, ...]
) -> None:
    student = TappedStudent(seeded_model(student_spec(strategy)), layer_pairs(config(features=features), 2, 3))
    own = student.meeting_parameters()
    names = {name for name, one in student.network.named_parameters() if any(one is other for other in own)}
    block = 0 if features == BOTH else 1
    assert len(names) == len(own) > 0
    assert all(f"blocks.{block}." in name for name in names)
    logits, taps = logits_and_taps(student.network, torch.randn(4, 3, 32, 32), student.layers)
    for output in (logits, *taps):
        found = torch.autograd.grad(output.square().sum(), own, retain_graph=True, allow_unused=True)
        assert all(grad is not None and bool(grad.any()) for grad in found)


def test_a_balanced_training_keeps_every_term_at_its_weight(inputs: Inputs, context: Context) -> None:
    record = stage.run(config(alpha=0.5, features=BOTH), inputs, context)
    features = {"spectral 0<-0": 0.1, "spectral 1<-2": 0.1, "mse 1<-1 (projector)": 0.6}
    assert set(record.scales) == set(features)
    assert set(record.shares) == set(record.first_gradient_norms) == {"labels", "soft_logits", *features}
    assert sum(record.shares.values()) == pytest.approx(sum(record.first_shares.values())) == pytest.approx(1)
    norms = record.first_gradient_norms  # right after the first measurement, so exactly in proportion
    for name, weight in features.items():
        assert norms[name] / norms["spectral 0<-0"] == pytest.approx(weight / 0.1)
    assert norms["spectral 0<-0"] <= 0.1 * (norms["labels"] + norms["soft_logits"]) * (1 + 1e-6)
    line = context.run.metrics()[-1]
    assert (line["shares"], line["scales"]) == (record.shares, record.scales)
    assert line["gradient_norms"] == record.gradient_norms


def test_fixed_weights_are_only_watched(inputs: Inputs, context: Context) -> None:
    record = stage.run(config(balance="fixed", features=BOTH), inputs, context)
    assert record.scales == {}
    assert min(record.gradient_norms.values()) > 0


def test_a_loss_without_features_balances_nothing() -> None:
    assert config().balances
    assert config(balance="gradients").balances
    assert not any(config(**changes).balances for changes in ({"balance": "fixed"}, {"features": ()}, {"beta": 0.0}))
