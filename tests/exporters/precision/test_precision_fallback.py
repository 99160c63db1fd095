from __future__ import annotations

from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(
    ("precision", "network", "block"), [("fp16", with_huge_mlp, 2), ("int8", with_outlier_channel, 1)]
)
def test_the_part_at_fault_alone_stays_in_fp32(
    tmp_path: Path, precision: Precision, network: Any, block: int, digit_images: NDArray[np.float32]
) -> None:
    source = export(network(block), tmp_path / "fp32.onnx")
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


def test_a_precision_that_most_products_cannot_take_is_refused(
    tmp_path: Path, digit_images: NDArray[np.float32]
) -> None:
    huge = export(with_huge_mlp(2), tmp_path / "fp32.onnx")
    with pytest.raises(ResultError, match=r"int8 is within its limits only with \d+ of \d+ matrix products in fp32"):
        reduce(huge, "int8", digit_images, Limits(difference=0.01, agreement=0.9))
    with pytest.raises(ResultError, match="no part of it takes"):
        reduce(huge, "int8", digit_images, Limits(difference=1e-9, agreement=0.9))
