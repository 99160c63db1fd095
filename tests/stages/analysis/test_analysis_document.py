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

from vitcompress.stages.analysis.document import MAX_POINTS, document, summarise, tables
from vitcompress.stages.analysis.quantities import DEFINITIONS
from vitcompress.stages.analysis.results import NetworkResult
from vitcompress.stages.analysis.statistics import interval


def documented(*networks: NetworkResult, advice: Any = None) -> dict[str, Any]:
    return document(networks, summarise(networks), advice)


def first_tap(network: NetworkResult) -> dict[str, Any]:
    made: dict[str, Any] = documented(network)["networks"][0]["taps"][0]
    return made


def table(name: str, *networks: NetworkResult) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(tables(summarise(networks))[name])))


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
        "way_spectrum": np.array([[0.5, 0.3, 0.2, 0], [0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]]),
        "way_intensity": np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        "channel_energy": np.array([0.1, 0.6, 0.05, 0.25]),
    }
    return dataclasses.replace(network, taps=(dataclasses.replace(network.taps[0], **(values | changed)),))


def test_counts_of_a_tap_seen_by_eye() -> None:
    tap = first_tap(by_hand())
    assert tap["rank"]["80"] == {"mean": 1.25, "median": 1.0, "p99": 2, "min": 1, "max": 2}
    assert [tap["pca"][share]["d"] for share in ("80", "90", "95", "99")] == [2, 2, 3, 4]
    assert tap["pca"]["95"]["of_width"] == 0.75
    assert tap["pca_curve"] == {"at": [0, 1, 2, 3], "value": [0.7, 0.9, 0.98, 1.0]}
    assert tap["sep_folded"]["50"] == {"d": 1, "fraction": pytest.approx(1 / 3, abs=1e-6)}
    assert [tap["sep_folded"][share]["d"] for share in ("60", "70", "80", "90")] == [2, 2, 2, 2]
    assert [found["d"] for found in tap["sep_sorted"].values()] == [1, 1, 2, 2, 3]
    assert [found["d"] for found in tap["sep_unfolded"].values()] == [1, 2, 2, 3, 4]  # whole FFT: 0.5, 0.2, 0.1, 0.2


def test_the_permutation_band_is_over_orders() -> None:
    found = first_tap(by_hand())["permutation"]
    areas = [(0.3 + 0.8 + 1) / 3, (0.2 + 0.8 + 1) / 3, (0.2 + 0.4 + 1) / 3]
    assert found["orders"] == 3
    assert found["area"] == pytest.approx({"own": 2.4 / 3, "min": min(areas), "max": max(areas)}, abs=1e-6)
    assert found["d90"] == {"own": 2, "min": 3, "max": 3}
    without = first_tap(by_hand(permuted=np.zeros((0, 3))))["permutation"]
    assert (without["orders"], without["area"]) == (0, {"own": 0.8, "min": None, "max": None})


def test_json_and_tables_equal_numpys_numbers() -> None:
    network = made_network(depth=3, images=12, kept=5)
    tap, found = network.taps[0], first_tap(network)
    assert found["rank"]["95"]["p99"] == np.percentile(tap.rank[:, 2], 99, method="inverted_cdf")
    assert found["pca_rank"]["90"]["mean"] == pytest.approx(tap.pca_rank[:, 1].mean(), rel=1e-5)
    for name in ("intensity", "entropy", "magnitude", "participation", "order_effect"):
        assert found[name]["mean"] == pytest.approx(getattr(tap, name).mean(), rel=1e-5)
    assert found["spectrum"]["value"] == pytest.approx(tap.spectrum, rel=1e-5)
    assert len(found["sep_folded_curve"]["value"]) == 384 // 2 + 1
    assert (found["kept_images"], found["entropy"]["images"], found["images"]) == (5, 5, 12)

    tap, rank = network.taps[2], table("rank.csv", network)[2]
    assert float(rank["p50_at_95%"]) == pytest.approx(np.median(tap.rank[:, 2]), rel=1e-5)
    assert float(rank["p99_at_80%"]) == np.percentile(tap.rank[:, 0], 99, method="inverted_cdf")
    row = table("entropy_magnitude.csv", network)[2]
    assert float(row["magnitude"]) == pytest.approx(tap.magnitude.mean(), rel=1e-5)
    assert (float(row["low"]), float(row["high"])) == pytest.approx((tap.low, tap.high), rel=1e-5)
    assert float(row["entropy_95%_low"]) < float(row["entropy"]) < float(row["entropy_95%_high"])
    assert float(table("intensity.csv", network)[2]["intensity"]) == pytest.approx(tap.intensity.mean(), rel=1e-5)


def test_the_bootstrap_interval_is_about_the_normal_one_and_repeats() -> None:
    values = np.random.default_rng(3).normal(5, 2, 400)
    found = interval(values)
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    assert found["interval"] == pytest.approx([values.mean() - half, values.mean() + half], abs=0.1 * half)
    assert interval(values.copy()) == found


def test_images_without_a_value_are_left_out_and_counted() -> None:
    found = first_tap(by_hand())["order_effect"]
    assert (found["mean"], found["images"], found["left_out"]) == (0.2, 3, 1)
    low, high = found["interval"]
    assert 0.1 <= low < 0.2 < high <= 0.3


@pytest.mark.parametrize("images", [0, 1])
def test_fewer_than_two_images_make_no_interval(images: int) -> None:
    found = first_tap(by_hand(entropy=np.full(images, 2.5)))["entropy"]
    assert (found["mean"], found["interval"]) == (2.5 if images else None, None)
    assert f"{images} images with a value" in found["reason"]


def test_every_key_is_defined_with_a_unit_and_a_source() -> None:
    made = documented(by_hand(), advice={"strategy": "lift"})
    (network,) = made["networks"]
    keys = {*made, *network, *network["taps"][0]} - {"schema_version", "definitions", "networks"}
    assert keys | {"approach", "files"} == set(DEFINITIONS)
    for name, definition in made["definitions"].items():
        assert set(definition) == {"meaning", "unit", "source"}, name
        assert definition["meaning"].endswith("."), name
        assert all(definition.values()), name


def test_no_energy_and_no_number_are_finite_json_and_empty_cells() -> None:
    empty = emptied(made_network(depth=2, images=2, kept=0))
    advice = {"strategy": "plain", "because": [float("nan"), np.float64(1 / 3), np.int64(7)]}
    made = documented(empty, advice=advice)
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert made["advice"] == {"strategy": "plain", "because": [None, 0.333333, 7]}
    tap = made["networks"][0]["taps"][0]
    assert tap["pca"]["95"]["d"] == 0
    assert (tap["order_effect"]["mean"], tap["order_effect"]["left_out"]) == (None, 2)
    assert tap["pca_rank"]["95"] == {"mean": None, "median": None, "p99": None, "min": None, "max": None}
    row = table("entropy_magnitude.csv", emptied(made_network(depth=1, images=1, kept=0)))[0]
    assert (row["entropy"], row["magnitude"], row["magnitude_95%_low"]) == ("", "0.0", "")


def test_many_networks_stay_below_two_megabytes_and_thinning_is_said() -> None:
    networks = [made_network(f"student epoch {i}", epoch=i, images=4, kept=2) for i in range(12)]
    made = documented(*networks)
    assert len(json.dumps(made, allow_nan=False)) < 2_000_000
    assert made["curve_points"].startswith("thinned evenly to at most")
    curves = [value for network in made["networks"] for tap in network["taps"] for value in tap.values()]
    assert sum(len(curve["at"]) for curve in curves if isinstance(curve, dict) and "at" in curve) <= MAX_POINTS
    whole = networks[0].taps[0].pca_spectrum.cumsum()
    curve = made["networks"][0]["taps"][0]["pca_curve"]
    assert (curve["at"][0], curve["at"][-1]) == (0, 383)
    assert curve["value"] == pytest.approx(whole[curve["at"]], rel=1e-5)
    assert documented(networks[0])["curve_points"] == "all"


def test_tables_have_one_row_a_tap_of_every_network() -> None:
    made = tables(summarise(checkpoints(3, depth=4, images=3, kept=3)))
    assert set(made) == {"rank.csv", "pca.csv", "ways.csv", "sep.csv", "intensity.csv", "entropy_magnitude.csv"}
    for text in made.values():
        rows = list(csv.DictReader(io.StringIO(text)))
        assert len(rows) == 24 + 3 * 4
        assert (rows[0]["network"], rows[0]["epoch"]) == ("teacher", "")
        assert (rows[-1]["network"], rows[-1]["epoch"], rows[-1]["name"]) == ("student after", "300", "block 3")


def test_tables_of_a_tap_seen_by_eye() -> None:
    (sep,), (pca,), (ways,) = (table(name, by_hand()) for name in ("sep.csv", "pca.csv", "ways.csv"))
    assert (sep["unfolded_d90"], sep["unfolded_d90_%"]) == ("4", "100.0")
    assert (sep["folded_d50"], sep["folded_d50_%"]) == ("1", "33.3333")
    assert (pca["d_at_95%"], pca["d_at_95%_of_D_%"], pca["kept_images"]) == ("3", "75.0", "2")
    assert (ways["standardised_d_at_95%"], ways["standardised_intensity"]) == ("4", "5.5")
    assert (ways["channel_1"], ways["top1_%"], ways["channel_2"], ways["top2_%"]) == ("1", "60.0", "3", "85.0")


def test_every_way_is_told_in_short_and_the_strongest_channels() -> None:
    made = by_hand()
    found = first_tap(made)
    assert list(found["ways"]) == ["raw", "normed", "centred", "standardised"]
    assert [view["pca"]["95"] for view in found["ways"].values()] == [3, 3, 4, 4]
    assert [view["intensity"] for view in found["ways"].values()][1:] == [1.5, 3.5, 5.5]
    assert found["ways"]["centred"]["pca_rank"]["95"]["median"] == np.median(made.taps[0].way_pca_rank[1][:, 2])
    assert found["ways"]["raw"]["rank"]["99"] == {key: found["rank"]["99"][key] for key in ("median", "p99")}
    assert found["channels"] == {"strongest": [1, 3], "top1": 0.6, "top2": 0.85}


def test_without_a_final_norm_that_way_is_absent() -> None:
    made = by_hand(normed=False)
    assert list(first_tap(made)["ways"]) == ["raw", "centred", "standardised"]
    (row,) = table("ways.csv", made)
    assert row["normed_shared_p50_at_95%"] == row["normed_intensity"] == ""
    assert row["centred_shared_p50_at_95%"] != ""
