"""The norm before the classifier is found by family, and none is invented."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from vitcompress.stages.models.final_norm import final_norm
from vitcompress.stages.models.students import LiftStudent

SMALL: dict[str, Any] = {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 3}


@pytest.mark.parametrize(
    ("arch", "name"),
    [("deit_tiny_patch16_224", "norm"), ("cait_s24_224", "norm"), ("beit_base_patch16_224", "fc_norm")],
)
def test_it_is_timms_own(arch: str, name: str) -> None:
    network = timm.create_model(arch, **SMALL)
    found = final_norm(network)
    assert found is not None
    assert found[0] is getattr(network, name)
    assert found[1] == 24
    assert found[0](torch.randn(2, 5, 24)).shape == (2, 5, 24)


def test_a_lift_has_none_after_its_tap_and_a_network_without_norms_neither() -> None:
    assert final_norm(LiftStudent(timm.create_model("deit_tiny_patch16_224", **SMALL), "deit_tiny", 48, 10)) is None
    assert final_norm(nn.Linear(3, 3)) is None
