"""What the JSON says is what numpy finds in the arrays, in finite numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from crafted_networks import crafted, crafted_tap, followed

from vitcompress.stages.analysis.document import document


def first_tap(**changed: Any) -> dict[str, Any]:
    """One tap of 4 channels whose numbers can be told by looking."""
    values: dict[str, Any] = {
        "rank": np.array([[1, 2, 3, 4], [1, 1, 2, 2], [2, 2, 4, 4], [1, 2, 3, 4]]),
        "pca_spectrum": np.array([0.7, 0.2, 0.08, 0.02]),
        "sep_energy": np.array([0.5, 0.4, 0.1]),
        "way_spectrum": np.array([[0.5, 0.3, 0.2, 0], [0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]]),
        "way_intensity": np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        "channel_energy": np.array([0.1, 0.6, 0.05, 0.25]),
        "magnitude": np.array([1.0, 2.0, 3.0, 4.0]),
    }
    tap = replace(crafted_tap(0, width=4, images=4, kept=2), **(values | changed))
    made: dict[str, Any] = document([crafted([tap])], None)["networks"][0]["taps"][0]
    return made


def test_a_tap_seen_by_eye() -> None:
    tap = first_tap()
    assert tap["rank"]["80"] == {"median": 1.0, "p99": 2}
    assert tap["pca"] == {"80": 2, "90": 2, "95": 3, "99": 4}
    assert tap["pca_curve"] == [0.7, 0.9, 0.98, 1.0]
    assert list(tap["sep_folded"].values()) == [1, 2, 2, 2, 2]
    assert list(tap["sep_unfolded"].values()) == [1, 2, 2, 3, 4]  # whole FFT: 0.5, 0.2, 0.1, 0.2
    assert (tap["kept_images"], tap["viewed_images"], tap["images"]) == (2, 2, 4)
    assert tap["channels"] == {"strongest": [1, 3], "top1": 0.6, "top2": 0.85}
    assert [view["pca"]["95"] for view in tap["ways"].values()] == [3, 3, 4, 4]
    assert [view["intensity"] for view in tap["ways"].values()][1:] == [1.5, 3.5, 5.5]
    assert tap["ways"]["raw"]["rank"] == tap["rank"]
    low, high = tap["magnitude"]["interval"]
    assert 1 <= low < tap["magnitude"]["mean"] == 2.5 < high <= 4


def test_without_a_final_norm_that_way_is_absent_and_one_image_makes_no_interval() -> None:
    assert list(first_tap(normed=False)["ways"]) == ["raw", "centred", "standardised"]
    assert first_tap(entropy=np.array([2.5]))["entropy"] == {"mean": 2.5, "interval": None}


def test_numbers_are_finite_json_with_six_digits() -> None:
    networks = followed(0, 8)
    made = document(networks, None, [{"distance": float("nan"), "third": np.float64(1 / 3)}])
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert made["approach"] == [{"distance": None, "third": 0.333333}]
    assert [network["epoch"] for network in made["networks"]] == [None, 0, 8]
    tap, found = networks[0].taps[0], made["networks"][0]["taps"][0]
    assert found["pca_rank"]["90"]["median"] == np.median(tap.pca_rank[:, 1])
    assert found["entropy"]["mean"] == pytest.approx(tap.entropy.mean(), rel=1e-5)
