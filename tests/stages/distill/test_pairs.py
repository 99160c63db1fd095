from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from vitcompress.core.errors import UsageError
from vitcompress.stages.distill.config import DistillConfig, FeatureTerm
from vitcompress.stages.distill.pairs import (
    LayerPair,
    check_alignable,
    layer_pairs,
    resolved_features,
    student_layers,
    teacher_layers,
)


def config(*terms: dict[str, Any], **settings: Any) -> DistillConfig:
    return DistillConfig(features=tuple(FeatureTerm(**term) for term in terms), **settings)


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [("last", ((1, 2),)), (((0, 0), (-1, -1)), ((0, 0), (1, 2))), (((1, 1), (0, -3)), ((1, 1), (0, 0)))],
)
def test_layers_count_from_either_end(pairs: Any, wanted: tuple[tuple[int, int], ...]) -> None:
    (term,) = resolved_features(config({"pairs": pairs}), 2, 3)
    assert term.pairs == wanted
    assert resolved_features(DistillConfig(features=(term,)), 2, 3) == (term,)


def test_pairs_in_use_carry_their_share_of_the_weight_and_their_name() -> None:
    found = layer_pairs(
        config(
            {"kind": "mse", "pairs": ((0, 0), (1, 2)), "weight": 0.4, "match": "projector"},
            {"weight": 0.0, "pairs": ((0, 1),)},
            {"weight": 0.1},
            beta=2.0,
        ),
        2,
        3,
    )
    assert found == (
        LayerPair("mse", 0, 0, "projector", 0.4),
        LayerPair("mse", 1, 2, "projector", 0.4),
        LayerPair("spectral", 1, 2, "pool", 0.2),
    )
    assert [pair.name for pair in found] == ["mse 0<-0 (projector)", "mse 1<-2 (projector)", "spectral 1<-2"]
    assert (student_layers(found), teacher_layers(found)) == ((0, 1), (0, 2))


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (
            [{"pairs": ((2, 0),)}],
            r"features.0.pairs has student layer 2; the student has 2 layers, 0 to 1 \(or -2 to -1",
        ),
        ([{}, {"pairs": ((0, 3),)}], "features.1.pairs has teacher layer 3; the teacher has 3 layers, 0 to 2"),
        ([{"pairs": ((0, -4),)}], "teacher layer -4"),
        ([{"pairs": ((0, 9),), "weight": 0.0}], "teacher layer 9"),
        ([{"pairs": ((1, 2), (-1, -1))}], r"student layer 1 with teacher layer 2 by spectral \(pool\) a second time"),
        ([{}, {"weight": 0.1}], "features.1.pairs .* a second time"),
    ],
)
def test_layers_that_do_not_exist_or_come_twice_are_refused(terms: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        layer_pairs(config(*terms), 2, 3)


def test_one_pair_may_be_compared_in_several_ways() -> None:
    ways = [(kind, match) for kind in ("mse", "spectral") for match in ("pool", "projector")]
    found = layer_pairs(config(*({"kind": kind, "match": match} for kind, match in ways)), 2, 3)
    assert len({pair.name for pair in found}) == len(ways)


@pytest.mark.parametrize("pairs", [[[1]], [[0, 0], [1, 2, 3]], [[0, 1.5]], [[True, False]], [3], 7, "first", []])
def test_lists_that_are_no_pairs_are_refused(pairs: Any) -> None:
    with pytest.raises(ValidationError, match=r"given .*; give 'last' or a list of \[student layer, teacher layer\]"):
        FeatureTerm(pairs=pairs)


PAIRS = layer_pairs(config({"pairs": ((0, 0), (1, 1), (1, 2))}), 2, 3)


def test_taps_that_are_no_maps_are_refused_with_both_shapes() -> None:
    student = {0: (1, 8, 7, 7), 1: (1, 8, 7, 7)}
    with pytest.raises(UsageError, match=r"'spectral 1<-2' .* \[1, 8, 7, 7\], the teacher's \[1, 50, 16\]"):
        check_alignable(PAIRS, student, {0: (1, 16, 7, 7), 1: (1, 16, 7, 7), 2: (1, 50, 16)})
