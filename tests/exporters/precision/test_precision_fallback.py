from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from reduced_models import digits, export, reduce, with_huge_mlp, with_outlier_channel

from vitcompress.core.artifact_records import Precision
from vitcompress.core.errors import ResultError
from vitcompress.exporters.precision.audit import check_audit
from vitcompress.exporters.precision.compare import Limits
from vitcompress.exporters.precision.graph import load_source

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


@pytest.mark.parametrize(("precision", "name", "block"), [("fp16", "huge", 2), ("int8", "outlier", 1)])
def test_the_part_at_fault_alone_stays_in_fp32(
    request: pytest.FixtureRequest, precision: Precision, name: str, block: int, digit_images: NDArray[np.float32]
) -> None:
    source: Path = request.getfixturevalue(name)
    facts = reduce(source, precision, digit_images, LIMITS)
    graph = load_source(source)
    mlp = graph.parts()[2 * block + 2]  # the stem, then two parts a block
    assert set(facts.how.kept_fp32) <= mlp
    kinds = {node.name: node.op_type for node in graph.nodes}
    products = sum(kinds[node] == "MatMul" for node in facts.how.kept_fp32)
    assert products == 2
    assert facts.how.conversions == 11  # one with nothing left in fp32, then one a part
    assert facts.how.difference is not None
    assert facts.how.difference <= LIMITS.difference
    check_audit(facts.audit, precision, kept=products + facts.how.unreduced)
    with pytest.raises(ResultError, match="were to stay in fp32"):
        check_audit(facts.audit, precision, kept=products + facts.how.unreduced - 1)


@pytest.mark.parametrize(
    ("difference", "words"),
    [(0.01, r"int8 is within its limits only with \d+ of \d+ matrix products in fp32"), (1e-9, "no part of it takes")],
)
def test_a_precision_that_most_products_cannot_take_is_refused(
    huge: Path, digit_images: NDArray[np.float32], difference: float, words: str
) -> None:
    with pytest.raises(ResultError, match=words):
        reduce(huge, "int8", digit_images, Limits(difference=difference, agreement=0.9))
