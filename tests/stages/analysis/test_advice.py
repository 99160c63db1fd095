from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from crafted_networks import CAIT_LAYERS, around, cait_intensities, crafted, teacher
from scipy.stats import binom

from vitcompress.core.analysis_records import Advice, Recommendation
from vitcompress.stages.analysis.advice import advise
from vitcompress.stages.analysis.drawn import leading, statistics
from vitcompress.stages.analysis.results import NetworkResult
from vitcompress.stages.analysis.rules import RULES
from vitcompress.stages.analysis.statistics import MIN_IMAGES, resampled_rows
from vitcompress.stages.models.geometry import Shape

TINY, SMALL, SWIN = Shape(192, 12, 3), Shape(384, 12, 6), Shape(768, 4, None)


def answer(advice: Advice, what: str) -> Recommendation:
    (found,) = [recommendation for recommendation in advice.recommendations if recommendation.what == what]
    return found


def test_published_cait_and_deit_tiny_give_a_lift_on_the_last_taps() -> None:
    own = np.repeat([110, 121, 130], [980, 10, 10])  # 121: the 990th of 1,000
    published = teacher(images=1000, shared=around(302, 1000, 8), own=own)
    advice = advise(published, TINY, "deit_tiny")
    numbers = answer(advice, "strategy").numbers
    assert numbers["directions of an image alone, 99th percentile"] == 121
    held = numbers["energy in the shared directions of the student's width"]
    assert held == pytest.approx(0.5)  # the crafted spectrum is flat
    assert (advice.strategy, advice.kind, advice.pairs, advice.wide_heads) == ("lift", "spectral", ((11, 23),), None)
    assert answer(advice, "strategy").rule == "each image fits"
    assert answer(advice, "strategy").confidence == 1
    reason = answer(advice, "strategy").reason
    assert all(words in reason for words in ("302 directions", "192 wide", "121 of its own"))
    assert answer(advice, "width").value == "320"  # 302 in heads of 64
    assert advice.summary == "lift for deit_tiny; spectral, 11 <-> 23"


def test_a_student_as_wide_as_cait_stays_plain_and_gets_the_published_layers() -> None:
    advice = advise(teacher(images=1000), SMALL, "deit_small")
    assert (advice.strategy, answer(advice, "strategy").rule) == ("plain", "student as wide")
    assert advice.kind == "spectral"
    assert advice.pairs == tuple(zip((0, 1, 6, 7, 8, 9, 10, 11), CAIT_LAYERS, strict=True))
    assert answer(advice, "pairs").value == "spectral, 0 1 6 7 8 9 10 11 <-> 0 1 18 19 20 21 22 23"
    assert answer(advice, "strategy").confidence == 1
    tiny = advise(teacher(shared=150), TINY, "deit_tiny")
    assert (tiny.strategy, tuple(theirs for _, theirs in tiny.pairs)) == ("plain", CAIT_LAYERS)


CASES: dict[str, tuple[NetworkResult, Shape, dict[str, Any]]] = {
    "student as wide": (teacher(width=192, shared=192), TINY, {"strategy": "plain"}),
    "student with stages": (teacher(), Shape(192, 4, None), {"strategy": "plain"}),
    "shared basis fits": (teacher(shared=192), TINY, {"strategy": "plain"}),  # the boundary
    "each image fits": (teacher(shared=193, own=192), TINY, {"strategy": "lift"}),  # both boundaries
    "no image fits, wide block": (teacher(own=193), TINY, {"strategy": "widelast", "wide_heads": "size"}),
    "no image fits, no wide block": (teacher(own=193, width=385), TINY, {"strategy": "lift"}),
    "last to last, lift": (teacher(), TINY, {"kind": "spectral", "pairs": ((11, 23),)}),
    "last to last, widelast": (teacher(own=193), TINY, {"kind": "mse", "pairs": ((11, 23),)}),
    "stage by stage": (
        teacher(width=768, depth=4, name="stage"),
        SWIN,
        {"kind": "spectral", "pairs": ((0, 0), (1, 1), (2, 2), (3, 3)), "strategy": "plain"},
    ),
    "grids differ": (teacher(), SWIN, {"kind": "spectral", "pairs": ((3, 23),), "strategy": "plain"}),
    "highest intensity": (teacher(shared=1), Shape(192, 2, 3), {"kind": "spectral", "pairs": ((1, 23),)}),
    "whole heads": (teacher(shared=193), TINY, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_case_for_each_rule(name: str) -> None:
    network, student, expected = CASES[name]
    advice = advise(network, student, "the_student")
    (found,) = [recommendation for recommendation in advice.recommendations if recommendation.rule == name]
    (rule,) = [rule for rule in RULES if rule.name == name]
    assert (found.what, found.source) == (rule.what, rule.source)
    assert {key: getattr(advice, key) for key in expected} == expected
    assert found.confidence == 1  # these images are all alike
    assert [recommendation.what for recommendation in advice.recommendations] == ["strategy", "pairs", "width"]
    for recommendation in advice.recommendations:
        assert "{" not in recommendation.reason
    assert Advice.model_validate_json(advice.model_dump_json()) == advice


def test_every_rule_of_the_table_has_a_case() -> None:
    assert list(CASES) == [rule.name for rule in RULES]


def test_a_widened_block_keeps_the_number_of_heads_where_their_size_does_not_divide() -> None:
    advice = advise(teacher(width=390, own=193), TINY, "deit_tiny")  # 390 = 130 * 3, no multiple of 64
    assert (advice.strategy, advice.wide_heads) == ("widelast", "count")
    assert answer(advice, "strategy").value == "widelast (heads keep their count)"


def test_the_width_comes_in_whole_heads_with_its_interval_and_not_beyond_the_teachers() -> None:
    spread = answer(advise(teacher(shared=around(257, 200, 20)), TINY, "deit_tiny"), "width")
    assert spread.value == "320"
    numbers, (rows,) = spread.numbers, resampled_rows(200, 200, seed=0)
    ends = np.quantile(np.median(around(257, 200, 20)[rows], axis=1), [0.025, 0.975])
    assert (numbers["d95"], numbers["d95, low"], numbers["d95, high"]) == pytest.approx((257, *ends))
    assert (numbers["width, low"], numbers["width, high"]) == (256, 320)
    assert spread.confidence is not None
    assert 0.2 < spread.confidence < 0.8
    assert answer(advise(teacher(shared=193), SWIN, "swin"), "width").value == "193"
    capped = answer(advise(teacher(width=380, shared=330), TINY, "deit_tiny"), "width")  # six heads of 64 make 384
    assert (capped.value, capped.numbers["width, high"]) == ("380", 380)


def test_a_clear_median_is_confident_and_one_on_the_boundary_a_coin_toss() -> None:
    clear = advise(teacher(shared=around(230, 200, 30)), TINY, "deit_tiny")
    assert answer(clear, "strategy").confidence == pytest.approx(1, abs=0.005)
    assert "strategy (" not in clear.summary
    toss = advise(teacher(shared=np.repeat([150, 250], 100)), TINY, "deit_tiny")  # half of the images fit
    confidence = answer(toss, "strategy").confidence
    assert confidence == pytest.approx(binom.sf(99, 200, 0.5), abs=0.04)  # 100 or more of the wide half: median 200
    assert f"weak: strategy (lift: confidence {confidence:.2f})" in toss.summary


def test_two_layers_alike_share_the_draws() -> None:
    intensities = cait_intensities(200)
    intensities[2] *= 0.5
    random = np.random.default_rng(3)
    for layer in (1, 5):  # both behind 18 (0.37) and before 17 (0.32), so the eighth of the eight is one of them
        noise = random.normal(0, 0.05, 200)
        intensities[layer] = 0.345 + noise - noise.mean()
    advice = advise(teacher(shared=100, intensities=intensities), TINY, "deit_tiny")
    numbers = answer(advice, "pairs").numbers
    assert answer(advice, "pairs").confidence == pytest.approx(0.5, abs=0.1)
    assert numbers["chosen, layer 1"] == pytest.approx(0.5, abs=0.1)
    assert (numbers["chosen, layer 23"], numbers["chosen, layer 10"]) == (1, 0)


@pytest.mark.parametrize(("images", "kept"), [(MIN_IMAGES - 1, MIN_IMAGES - 1), (200, MIN_IMAGES - 1)])
def test_too_few_images_recommend_nothing_and_say_so(images: int, kept: int) -> None:
    advice = advise(teacher(images=images, kept=kept), TINY, "deit_tiny")
    assert (advice.strategy, advice.kind, advice.pairs) == (None, None, ())
    assert [(entry.value, entry.confidence) for entry in advice.recommendations] == [(None, None)]
    assert advice.summary.startswith(f"nothing is recommended: {images} images were read, {kept} of them kept")


@pytest.mark.parametrize(("images", "kept"), [(50, 50), (300, 60)])
def test_just_enough_images_recommend_whether_all_are_kept_or_not(images: int, kept: int) -> None:
    assert advise(teacher(images=images, kept=kept), TINY, "deit_tiny").strategy == "lift"


def test_kept_images_are_drawn_with_their_own_ranks() -> None:
    """Of five images 0, 2 and 4 are kept: places 0, 1, 2 of a draw; 1 and 3 are places 3 and 4."""
    intensities = [np.array([9.0, 1.0, 9.0, 1.0, 9.0]), np.full(5, 6.0)]
    own = [10, 11, 12, 13, 14]
    network = teacher(images=5, kept=3, shared=[20, 22, 24], own=own, intensities=intensities, depth=2)
    shared, own_drawn, strongest = statistics(network, np.array([[0] * 5, [1] * 5, [2, 2, 2, 3, 3]]), 1, "raw")
    assert shared.tolist() == [20, 22, 24]
    assert own_drawn.tolist() == [10, 12, 14]
    assert strongest.tolist() == [[0], [0], [1]]  # the last: (3 * 9 + 2 * 1) / 5 = 5.8 against 6


def test_other_ways_are_drawn_over_kept_images() -> None:
    """As above, but layer 0 was looked at in images 0 and 4 only, and has intensities of its own."""
    intensities = [np.array([9.0, 1.0, 9.0, 1.0, 9.0]), np.full(5, 6.0)]
    network = teacher(images=5, kept=3, shared=[20, 22, 24], own=[10, 11, 12, 13, 14], intensities=intensities, depth=2)
    values = {name: getattr(network.taps[0], name)[:, :2] for name in ("way_rank", "way_pca_rank")}
    first = replace(network.taps[0], way_intensity=np.array([[1.0, 9.0]] * 3), **values)
    rows = np.array([[0, 0, 0, 1, 1], [2, 2, 0, 0, 0], [2, 2, 2, 3, 3], [1, 1, 1, 3, 4]])
    shared, own, strongest = statistics(crafted([first, network.taps[1]]), rows, 1, "centred")
    assert shared.tolist() == [20, 24, 24, 22]  # of places 0, 1 and 2
    assert own.tolist() == [10, 14, 14, 12]
    # Of layer 0: image 0 alone; of 0 and 4, drawn 3 and 2 times, (3 * 1 + 2 * 9) / 5; 4 alone; neither, so both.
    assert strongest.tolist() == [[1], [1], [0], [1]]
    assert statistics(crafted([replace(first, normed=False), network.taps[1]]), rows, 1, "normed")[2].tolist() == (
        statistics(network, rows, 1, "raw")[2].tolist()
    )


MASSIVE = {"normed": (41, 26), "centred": (52, 26), "standardised": (78, 34)}
"""Shared and own directions of a real ViT-S in the other ways, where raw tokens need 18 and 18."""


def massive(**given: Any) -> NetworkResult:
    return teacher(shared=18, own=18, others=MASSIVE, **given)


def test_measures_that_agree_leave_the_confidence_and_are_told() -> None:
    found = answer(advise(massive(), TINY, "deit_tiny"), "strategy")
    assert (found.value, found.confidence, found.sampling, found.measure) == ("plain", 1, 1, "raw")
    assert "measures" not in found.reason
    assert set(found.answers.values()) == {"plain"}
    assert [found.numbers[f"d95, {way}"] for way in found.answers] == [18, 41, 52, 78]
    assert found.numbers["energy in the two strongest channels"] == pytest.approx(0.25)


def test_one_measure_of_four_that_disagrees_takes_a_quarter_of_the_confidence() -> None:
    advice = advise(massive(), Shape(64, 12, 1), "narrow")
    found = answer(advice, "strategy")
    assert (found.value, found.confidence, found.sampling) == ("plain", 0.75, 1)
    assert found.reason.endswith("so they fit. The measures disagree (standardised: lift), confidence 0.75.")
    width = answer(advice, "width")
    assert (width.value, width.confidence) == ("64", 0.75)
    assert "strategy (plain: confidence 0.75)" in advice.summary
    pairs = answer(advice, "pairs")  # the dissenter's lift compares the last taps alone
    assert pairs.sampling is not None
    assert pairs.confidence == pytest.approx(0.75 * pairs.sampling)


def test_raw_is_outvoted_by_more_of_the_measures() -> None:
    advice = advise(massive(), Shape(32, 12, 1), "narrow")
    found = answer(advice, "strategy")
    assert (found.value, found.measure, found.confidence, found.sampling) == ("lift", "after the final norm", 0.5, 1)
    assert "needs 41 directions" in found.reason
    assert "no more than 26 of its own" in found.reason
    assert "(raw: plain; standardised: widelast (heads keep their size))" in found.reason
    assert found.numbers["d95"] == 41


def test_a_tie_goes_to_raw() -> None:
    assert leading({"raw": "a", "normed": "b", "centred": "b", "standardised": "a"}) == "raw"
    assert leading({"raw": "a", "normed": "b", "centred": "c", "standardised": "b"}) == "normed"
    assert leading({"raw": "a", "centred": "b", "standardised": "c"}) == "raw"
    found = answer(advise(massive(), Shape(48, 12, 1), "narrow"), "strategy")
    assert (found.value, found.measure, found.confidence) == ("plain", "raw", 0.5)


def test_without_a_final_norm_three_measures_are_asked() -> None:
    found = answer(advise(massive(normed=False), Shape(64, 12, 1), "narrow"), "strategy")
    assert list(found.answers) == ["raw", "centred", "standardised"]
    assert found.confidence == pytest.approx(2 / 3)


def test_layers_are_chosen_by_intensity_in_every_way() -> None:
    rising, falling = [float(layer) for layer in range(1, 25)], [float(layer) for layer in range(24, 0, -1)]
    network = massive(intensities=rising, other_intensities={"normed": falling, "standardised": falling})
    advice = advise(network, Shape(192, 3, 3), "shallow")
    found = answer(advice, "pairs")
    assert advice.pairs == ((1, 22), (2, 23))
    assert (found.measure, found.confidence, found.sampling) == ("raw", 0.5, 1)
    outvoted = massive(intensities=rising, other_intensities=dict.fromkeys(MASSIVE, falling))
    assert advise(outvoted, Shape(192, 3, 3), "shallow").pairs == ((0, 0), (1, 1))
