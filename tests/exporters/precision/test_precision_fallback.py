from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from reduced_models import digits, export, reduce, with_huge_mlp, with_outlier_channel

from vitcompress.core.artifact_records import Precision
from vitcompress.core.errors import ResultError
from vitcompress.exporters.precision.audit import check_audit
from vitcompress.exporters.precision.graph import blocks_of, load_source
from vitcompress.exporters.precision.limits import Limits
from vitcompress.exporters.precision.reduce import ReducedFacts

LIMITS = Limits(difference=0.12, agreement=0.9)


@pytest.fixture(scope="module")
def digit_images() -> NDArray[np.float32]:
    return digits()[0][:64]


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(with_huge_mlp(2), tmp_path_factory.mktemp("huge") / "fp32.onnx")


@pytest.fixture(scope="module")
def outlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(with_outlier_channel(1), tmp_path_factory.mktemp("outlier") / "fp32.onnx")


@pytest.fixture(scope="module")
def searched(huge: Path, digit_images: NDArray[np.float32]) -> ReducedFacts:
    """`huge` in fp16, its search not cut short."""
    return reduce(huge, "fp16", digit_images, LIMITS)


@pytest.mark.parametrize(("precision", "name", "block", "most"), [("fp16", "huge", 2, 30), ("int8", "outlier", 1, 15)])
def test_the_block_at_fault_is_found_and_only_it(
    request: pytest.FixtureRequest,
    precision: Precision,
    name: str,
    block: int,
    most: int,
    digit_images: NDArray[np.float32],
) -> None:
    source: Path = request.getfixturevalue(name)
    if precision == "fp16":
        facts: ReducedFacts = request.getfixturevalue("searched")
    else:
        facts = reduce(source, precision, digit_images, LIMITS)
    graph = load_source(source)
    blocks = blocks_of(graph)
    assert {blocks[name] for name in facts.how.kept_fp32} == {f"blocks.{block}"}
    kinds = {node.name: node.op_type for node in graph.nodes}
    kept = sorted(kinds[name] for name in facts.how.kept_fp32)
    assert kept == (["Add", "Gelu", "MatMul", "MatMul"] if precision == "fp16" else ["MatMul"])
    assert 2 < facts.how.conversions <= most
    assert facts.how.difference is not None
    assert facts.how.difference <= LIMITS.difference
    products = kept.count("MatMul")
    check_audit(facts.audit, precision, kept=products + facts.how.unreduced)
    with pytest.raises(ResultError, match="were to stay in fp32"):
        check_audit(facts.audit, precision, kept=products + facts.how.unreduced - 1)


def test_a_search_cut_short_keeps_more(huge: Path, searched: ReducedFacts, digit_images: NDArray[np.float32]) -> None:
    short = reduce(huge, "fp16", digit_images, replace(LIMITS, conversions=10))
    assert short.how.conversions == 10
    assert set(searched.how.kept_fp32) < set(short.how.kept_fp32)


def test_a_precision_that_most_products_cannot_take_is_refused(huge: Path, digit_images: NDArray[np.float32]) -> None:
    with pytest.raises(ResultError, match=r"int8 is within its limits only with \d+ of \d+ matrix products in fp32"):
        reduce(huge, "int8", digit_images, Limits(difference=0.01, agreement=0.9))


def test_blocks_go_by_the_names_of_their_parameters(huge: Path) -> None:
    found = blocks_of(load_source(huge))
    assert list(dict.fromkeys(found.values())) == ["stem", "blocks.0", "blocks.1", "blocks.2", "blocks.3", "head"]
    assert Counter(found.values())["blocks.1"] == Counter(found.values())["blocks.2"] == 28
