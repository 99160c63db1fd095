from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitcompress.exporters.precision.search import nodes_to_keep, smallest


@given(
    st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1, max_size=5)))
)
@settings(max_examples=60, deadline=None)
def test_exactly_the_culprits_are_found(case: tuple[int, set[int]]) -> None:
    count, culprits = case
    tried: list[frozenset[int]] = []

    def works(kept: frozenset[int]) -> bool:
        tried.append(kept)
        return culprits <= kept

    found = smallest(range(count), works)
    assert set(found) == culprits
    assert list(found) == sorted(found)
    k = len(culprits)
    assert len(tried) <= 2 * k * math.log2(count / k + 1) + 2 * k + 1


@pytest.mark.parametrize("culprits", [{"b3.MatMul.0"}, {"b3.MatMul.1", "b3.Add.0"}, {"b0.Add.1", "b7.MatMul.0"}])
def test_from_blocks_to_operators_to_nodes(culprits: set[str]) -> None:
    names = [f"b{block}.{kind}.{index}" for block in range(8) for kind in ("MatMul", "Add", "Gelu") for index in (0, 1)]
    blocks = {name: name.split(".")[0] for name in names}
    operators = {name: name.split(".")[1] for name in names}
    assert set(nodes_to_keep(names, blocks, operators, culprits.__le__)) == culprits


def test_a_test_that_gives_up_only_makes_the_result_larger() -> None:
    names = [f"b{block}.MatMul.{index}" for block in range(8) for index in range(4)]
    blocks = {name: name.split(".")[0] for name in names}
    left = iter(range(7))
    kept = nodes_to_keep(
        names,
        blocks,
        dict.fromkeys(names, "MatMul"),
        lambda chosen: next(left, None) is not None and "b5.MatMul.2" in chosen,
    )
    assert "b5.MatMul.2" in kept
    assert {blocks[name] for name in kept} == {"b5"}
