"""What the JSON and the tables say is what numpy finds in the arrays, in finite numbers, all of it defined."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from typing import Any

import numpy as np
import pytest
from made_networks import checkpoints, emptied, made_network

from vitcompress.stages.analysis.definitions import DEFINITIONS, NETWORK
from vitcompress.stages.analysis.document import MAX_POINTS, document
from vitcompress.stages.analysis.results import NetworkResult
from vitcompress.stages.analysis.summary import mean_interval
from vitcompress.stages.analysis.tables import tables


@pytest.fixture(scope="module")
def network() -> NetworkResult:
    return made_network(depth=3, images=12, kept=5)


@pytest.fixture(scope="module")
def first_tap(network: NetworkResult) -> dict[str, Any]:
    made: dict[str, Any] = document([network], None)["networks"][0]["taps"][0]
    return made


def by_hand(**changed: Any) -> NetworkResult:
    """One tap of 4 channels whose numbers can be told by looking."""
    network = made_network(depth=1, widths=(4,), images=4, kept=2)
    values: dict[str, Any] = {
        "rank": np.array([[1, 2, 3, 4], [1, 1, 2, 2], [2, 2, 4, 4], [1, 2, 3, 4]]),
        "pca_spectrum": np.array([0.7, 0.2, 0.08, 0.02]),
        "sep_energy": np.array([0.5, 0.4, 0.1]),
        "sep_sorted": np.array([0.6, 0.85, 0.95, 1.0]),
        "permuted": np.array([[0.3, 0.5, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]]),
        "sampled": np.array([0.5, 0.4, 0.1]),
        "order_effect": np.array([0.1, np.nan, 0.3, 0.2]),
    }
    return dataclasses.replace(network, taps=(dataclasses.replace(network.taps[0], **(values | changed)),))


def test_counts_of_a_tap_seen_by_eye() -> None:
    tap = document([by_hand()], None)["networks"][0]["taps"][0]
    assert tap["rank"]["80"] == {"mean": 1.25, "median": 1.0, "p99": 2, "min": 1, "max": 2}
    assert [tap["pca"][share]["d"] for share in ("80", "90", "95", "99")] == [2, 2, 3, 4]
    assert tap["pca"]["95"]["of_width"] == 0.75
    assert tap["pca_curve"] == {"at": [0, 1, 2, 3], "value": [0.7, 0.9, 0.98, 1.0]}
    assert tap["sep_folded"]["50"] == {"d": 1, "fraction": pytest.approx(1 / 3, abs=1e-6)}
    assert [tap["sep_folded"][share]["d"] for share in ("60", "70", "80", "90")] == [2, 2, 2, 2]
    assert [tap["sep_sorted"][share]["d"] for share in ("50", "60", "70", "80", "90")] == [1, 1, 2, 2, 3]
    # Whole FFT: 0.5, 0.2, 0.1, 0.2.
    assert [tap["sep_unfolded"][share]["d"] for share in ("50", "60", "70", "80", "90")] == [1, 2, 2, 3, 4]


def test_the_permutation_band_is_over_orders() -> None:
    found = document([by_hand()], None)["networks"][0]["taps"][0]["permutation"]
    areas = [(0.3 + 0.8 + 1) / 3, (0.2 + 0.8 + 1) / 3, (0.2 + 0.4 + 1) / 3]
    assert found["orders"] == 3
    assert found["area"] == pytest.approx({"own": 2.4 / 3, "min": min(areas), "max": max(areas)}, abs=1e-6)
    assert found["d90"] == {"own": 2, "min": 3, "max": 3}


def test_numbers_over_images_equal_numpys(network: NetworkResult, first_tap: dict[str, Any]) -> None:
    tap = network.taps[0]
    assert first_tap["rank"]["95"]["p99"] == np.percentile(tap.rank[:, 2], 99, method="inverted_cdf")
    assert first_tap["pca_rank"]["90"]["mean"] == pytest.approx(tap.pca_rank[:, 1].mean(), rel=1e-5)
    for name in ("intensity", "entropy", "magnitude", "participation", "order_effect"):
        assert first_tap[name]["mean"] == pytest.approx(getattr(tap, name).mean(), rel=1e-5)
    assert first_tap["spectrum"]["value"] == pytest.approx(tap.spectrum, rel=1e-5)
    assert first_tap["kept_images"] == 5
    assert first_tap["entropy"]["images"] == 5
    assert first_tap["images"] == 12


def test_the_bootstrap_interval_is_about_the_normal_one_and_repeats() -> None:
    values = np.random.default_rng(3).normal(5, 2, 400)
    found = mean_interval(values)
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert mean_interval(values.copy()) == found


def test_images_without_energy_are_left_out_and_counted() -> None:
    found = document([by_hand()], None)["networks"][0]["taps"][0]["order_effect"]
    assert (found["mean"], found["images"], found["left_out"]) == (0.2, 3, 1)
    low, high = found["interval"]
    assert 0.1 <= low < 0.2 < high <= 0.3


@pytest.mark.parametrize("images", [0, 1])
def test_fewer_than_two_images_make_no_interval(images: int) -> None:
    found = document([by_hand(entropy=np.full(images, 2.5))], None)["networks"][0]["taps"][0]["entropy"]
    assert found["mean"] == (2.5 if images else None)
    assert found["interval"] is None
    assert f"{images} images with a value" in found["reason"]


def test_every_key_is_defined_with_a_unit_and_a_source(first_tap: dict[str, Any]) -> None:
    made = document([made_network(depth=1, images=3)], {"strategy": "lift"})
    keys = {*made, *made["networks"][0], *first_tap} - {"schema_version", "definitions", "networks"}
    assert keys - set(DEFINITIONS) == set()
    assert set(NETWORK) == set(made["networks"][0])
    for name, definition in made["definitions"].items():
        assert set(definition) == {"meaning", "unit", "source"}, name
        assert definition["meaning"].endswith("."), name
        assert all(definition.values()), name


def test_no_energy_and_no_number_are_finite_json() -> None:
    empty = emptied(made_network(depth=2, images=2, kept=0))
    advice = {"strategy": "plain", "because": [float("nan"), np.float64(1 / 3), np.int64(7)]}
    made = document([empty], advice)
    read = json.loads(json.dumps(made, allow_nan=False))
    assert read == made
    assert made["advice"] == {"strategy": "plain", "because": [None, 0.333333, 7]}
    tap = made["networks"][0]["taps"][0]
    assert tap["pca"]["95"]["d"] == 0
    assert tap["order_effect"]["mean"] is None
    assert tap["order_effect"]["left_out"] == 2
    assert tap["pca_rank"]["95"] == {"mean": None, "median": None, "p99": None, "min": None, "max": None}


def test_no_permutations_are_no_band() -> None:
    found = document([by_hand(permuted=np.zeros((0, 3)))], None)["networks"][0]["taps"][0]["permutation"]
    assert found["orders"] == 0
    assert found["area"] == {"own": 0.8, "min": None, "max": None}


def test_twelve_networks_stay_below_two_megabytes_and_thinning_is_said() -> None:
    networks = [made_network(f"student epoch {i}", epoch=i, images=4, kept=2) for i in range(12)]
    made = document(networks, None)
    assert len(json.dumps(made, allow_nan=False)) < 2_000_000
    assert made["curve_points"].startswith("thinned evenly to at most")
    curves = [value for network in made["networks"] for tap in network["taps"] for value in tap.values()]
    lengths = [len(curve["at"]) for curve in curves if isinstance(curve, dict) and "at" in curve]
    assert sum(lengths) <= MAX_POINTS
    whole = networks[0].taps[0].pca_spectrum.cumsum()
    curve = made["networks"][0]["taps"][0]["pca_curve"]
    assert (curve["at"][0], curve["at"][-1]) == (0, 383)
    assert curve["value"] == pytest.approx(whole[curve["at"]], rel=1e-5)


def test_few_networks_keep_their_whole_curves(first_tap: dict[str, Any]) -> None:
    assert document([made_network(depth=1)], None)["curve_points"] == "all"
    assert len(first_tap["sep_folded_curve"]["value"]) == 384 // 2 + 1


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_tables_have_one_row_a_tap_of_every_network() -> None:
    networks = checkpoints(3, depth=4, images=3, kept=3)
    made = tables(networks)
    assert set(made) == {"rank.csv", "pca.csv", "ways.csv", "sep.csv", "intensity.csv", "entropy_magnitude.csv"}
    for text in made.values():
        rows = rows_of(text)
        assert len(rows) == 24 + 3 * 4
        assert (rows[0]["network"], rows[0]["epoch"]) == ("teacher", "")
        assert (rows[-1]["network"], rows[-1]["epoch"], rows[-1]["name"]) == ("student after", "300", "block 3")


def test_tables_hold_numpys_numbers(network: NetworkResult) -> None:
    made = tables([network])
    tap = network.taps[2]
    rank = rows_of(made["rank.csv"])[2]
    assert float(rank["p50_at_95%"]) == pytest.approx(np.median(tap.rank[:, 2]), rel=1e-5)
    assert float(rank["p99_at_80%"]) == np.percentile(tap.rank[:, 0], 99, method="inverted_cdf")
    found = rows_of(made["entropy_magnitude.csv"])[2]
    assert float(found["entropy"]) == pytest.approx(tap.entropy.mean(), rel=1e-5)
    assert float(found["magnitude"]) == pytest.approx(tap.magnitude.mean(), rel=1e-5)
    assert (float(found["low"]), float(found["high"])) == pytest.approx((tap.low, tap.high), rel=1e-5)
    assert float(found["entropy_95%_low"]) < float(found["entropy"]) < float(found["entropy_95%_high"])
    assert float(rows_of(made["intensity.csv"])[2]["intensity"]) == pytest.approx(tap.intensity.mean(), rel=1e-5)


def test_tables_of_a_tap_seen_by_eye() -> None:
    made = tables([by_hand()])
    sep = rows_of(made["sep.csv"])[0]
    assert (sep["unfolded_d90"], sep["unfolded_d90_%"]) == ("4", "100.0")
    assert (sep["folded_d50"], sep["folded_d50_%"]) == ("1", "33.3333")
    pca = rows_of(made["pca.csv"])[0]
    assert (pca["d_at_95%"], pca["d_at_95%_of_D_%"], pca["kept_images"]) == ("3", "75.0", "2")


def test_a_table_leaves_cells_without_a_number_empty() -> None:
    row = rows_of(tables([emptied(made_network(depth=1, images=1, kept=0))])["entropy_magnitude.csv"])[0]
    assert (row["entropy"], row["magnitude"], row["magnitude_95%_low"]) == ("", "0.0", "")


def test_every_way_is_told_in_short_and_the_strongest_channels() -> None:
    made = by_hand(
        way_spectrum=np.array([[0.5, 0.3, 0.2, 0], [0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]]),
        way_intensity=np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        channel_energy=np.array([0.1, 0.6, 0.05, 0.25]),
    )
    tap = made.taps[0]
    found = document([made], None)["networks"][0]["taps"][0]
    assert list(found["ways"]) == ["raw", "normed", "centred", "standardised"]
    assert [view["pca"]["95"] for view in found["ways"].values()] == [3, 3, 4, 4]
    assert [view["intensity"] for view in found["ways"].values()][1:] == [1.5, 3.5, 5.5]
    assert found["ways"]["centred"]["pca_rank"]["95"]["median"] == np.median(tap.way_pca_rank[1][:, 2])
    assert found["ways"]["raw"]["rank"]["99"] == {key: found["rank"]["99"][key] for key in ("median", "p99")}
    assert found["channels"] == {"strongest": [1, 3], "top1": 0.6, "top2": 0.85}
    (row,) = csv.DictReader(io.StringIO(tables([made])["ways.csv"]))
    assert (row["standardised_d_at_95%"], row["standardised_intensity"]) == ("4", "5.5")
    assert (row["channel_1"], row["top1_%"], row["channel_2"], row["top2_%"]) == ("1", "60.0", "3", "85.0")


def test_without_a_final_norm_that_way_is_absent() -> None:
    made = by_hand(normed=False)
    found = document([made], None)["networks"][0]["taps"][0]
    assert list(found["ways"]) == ["raw", "centred", "standardised"]
    (row,) = csv.DictReader(io.StringIO(tables([made])["ways.csv"]))
    assert row["normed_shared_p50_at_95%"] == row["normed_intensity"] == ""
    assert row["centred_shared_p50_at_95%"] != ""
