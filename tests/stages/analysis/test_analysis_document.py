"""What the JSON and the tables say is what numpy finds in the arrays, in finite numbers."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from crafted_networks import crafted, crafted_tap, followed

from vitcompress.stages.analysis.document import document, tables


def first_tap(**changed: Any) -> dict[str, Any]:
    """One tap of 4 channels whose numbers can be told by looking."""
    values: dict[str, Any] = {
        "rank": np.array([[1, 2, 3, 4], [1, 1, 2, 2], [2, 2, 4, 4], [1, 2, 3, 4]]),
        "pca_spectrum": np.array([0.7, 0.2, 0.08, 0.02]),
        "sep_energy": np.array([0.5, 0.4, 0.1]),
        "sep_sorted": np.array([0.6, 0.85, 0.95, 1.0]),
        "sampled": np.array([0.5, 0.4, 0.1]),
        "permuted": np.array([[0.3, 0.5, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]]),
        "order_effect": np.array([0.1, np.nan, 0.3, 0.2]),
        "spectrum": np.array([3.0, 2.0, 1.0]),
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
    assert tap["rank"]["80"] == {"mean": 1.25, "median": 1.0, "p99": 2}
    assert tap["pca"] == {"80": 2, "90": 2, "95": 3, "99": 4}
    assert tap["pca_curve"] == [0.7, 0.9, 0.98, 1.0]
    assert list(tap["sep_folded"].values()) == [1, 2, 2, 2, 2]
    assert list(tap["sep_unfolded"].values()) == [1, 2, 2, 3, 4]  # whole FFT: 0.5, 0.2, 0.1, 0.2
    assert list(tap["sep_sorted"].values()) == [1, 1, 2, 2, 3]
    assert (tap["sep_folded_curve"], tap["sep_sorted_curve"]) == ([0.5, 0.9, 1.0], [0.6, 0.85, 0.95, 1.0])
    assert tap["spectrum"] == [3.0, 2.0, 1.0]
    assert (tap["kept_images"], tap["viewed_images"], tap["images"]) == (2, 2, 4)
    assert tap["channels"] == {"strongest": [1, 3], "top1": 0.6, "top2": 0.85}
    assert [view["pca"]["95"] for view in tap["ways"].values()] == [3, 3, 4, 4]
    assert [view["intensity"] for view in tap["ways"].values()][1:] == [1.5, 3.5, 5.5]
    assert tap["ways"]["raw"]["rank"] == tap["rank"]
    low, high = tap["magnitude"]["interval"]
    assert 1 <= low < tap["magnitude"]["mean"] == 2.5 < high <= 4


def test_the_permutation_band_is_over_orders_and_the_effect_over_images_with_energy() -> None:
    tap = first_tap()
    found = tap["permutation"]
    assert found["orders"] == 3
    assert found["area"] == {"own": 0.8, "min": pytest.approx(1.6 / 3, abs=1e-6), "max": 0.7}
    assert found["d90"] == {"own": 2, "min": 3, "max": 3}
    assert found["curve"] == {"own": [0.5, 0.9, 1.0], "min": [0.2, 0.4, 1.0], "max": [0.3, 0.8, 1.0]}
    assert tap["order_effect"]["mean"] == 0.2
    assert 0.1 <= tap["order_effect"]["interval"][0] < 0.2 < tap["order_effect"]["interval"][1] <= 0.3
    assert first_tap(order_effect=np.full(4, np.nan))["order_effect"] == {"mean": None, "interval": None}


def test_tables_have_a_row_a_tap_of_every_network_with_the_documents_numbers() -> None:
    made = document(followed(0, 8), None)
    rows = {name: list(csv.DictReader(text.splitlines())) for name, text in tables(made).items()}
    assert list(rows) == ["rank", "pca", "sep", "intensity", "entropy_magnitude"]
    assert all([row["network"] for row in table] == [row["network"] for row in rows["rank"]] for table in rows.values())
    assert [(row["epoch"], row["layer"]) for row in rows["rank"]] == [
        *(("", "0"), ("", "1"), ("", "2"), ("0", "0"), ("0", "1"), ("8", "0"), ("8", "1"))
    ]
    tap = made["networks"][2]["taps"][1]
    cells = {column: cell for table in rows.values() for column, cell in table[-1].items()}
    assert float(cells["rank_95_p99"]) == tap["rank"]["95"]["p99"]
    assert float(cells["pca_rank_80_mean"]) == tap["pca_rank"]["80"]["mean"]
    assert int(cells["pca_99"]) == tap["pca"]["99"]
    assert [int(cells[f"sep_sorted_{share}"]) for share in (50, 90)] == [tap["sep_sorted"][s] for s in ("50", "90")]
    for key in ("participation", "order_effect", "intensity", "entropy", "magnitude"):
        found = [float(cells[column]) for column in (key, f"{key}_low", f"{key}_high")]
        assert found == [tap[key]["mean"], *tap[key]["interval"]]


def test_without_a_final_norm_that_way_is_absent_and_one_image_makes_no_interval() -> None:
    assert list(first_tap(normed=False)["ways"]) == ["raw", "centred", "standardised"]
    assert first_tap(entropy=np.array([2.5]))["entropy"] == {"mean": 2.5, "interval": None}


def test_numbers_are_finite_json_with_six_digits() -> None:
    made = document(followed(0, 8), None, [{"distance": float("nan"), "third": np.float64(1 / 3)}])
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert made["approach"] == [{"distance": None, "third": 0.333333}]
