from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engine_graphs import build
from numpy.typing import NDArray
from reduced_models import LOOSE, digits, export, reduce, trained

from vitcompress.core.artifact_records import Precision
from vitcompress.core.errors import UsageError
from vitcompress.exporters.precision.audit import operator_dtypes
from vitcompress.exporters.precision.compare import LIMITS, deviation
from vitcompress.exporters.precision.reduce import reduced_from_onnx
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.exporters.tensorrt import installed_flavours


@pytest.fixture(scope="module")
def trained_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(trained(), tmp_path_factory.mktemp("trained") / "fp32.onnx")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_trained_network_runs_builds_and_is_far_within_the_default_limits(
    trained_file: Path, precision: Precision
) -> None:
    images, classes = digits()
    checked, target = images[1400:], trained_file.with_name(f"{precision}.onnx")
    limits = LIMITS[precision]
    said: list[str] = []
    facts = reduced_from_onnx(
        trained_file, target, precision, calibration=images[:200], checked=checked, limits=limits, log=said.append
    )
    with OnnxRunner(target) as runner, OnnxRunner(trained_file) as full:
        expected = full.infer(checked)
        found = deviation(runner.infer(checked), expected)
    assert (expected.argmax(axis=1) == classes[1400:]).mean() > 0.7
    assert facts.how.as_run == pytest.approx(found.relative, rel=1e-3)
    assert facts.how.kept_fp32 == ()
    assert facts.how.conversions == 1
    assert facts.how.difference is not None
    assert 0 < facts.how.difference < limits.difference / 2
    assert facts.how.agreement is not None
    assert facts.how.agreement > limits.agreement + (1 - limits.agreement) / 2
    assert facts.how.images == 397
    assert facts.how.calibration == ("200 training images, evenly spread" if precision == "int8" else "")
    assert facts.bytes == target.stat().st_size < (0.62 if precision == "fp16" else 0.5) * trained_file.stat().st_size
    assert facts.nodes == len(onnx.load(target).graph.node)
    assert facts.audit["LayerNormalization"].keys() == facts.audit["Softmax"].keys() == {"fp32"}
    assert facts.audit["Conv"].keys() == {precision}
    if precision == "int8":  # ONNX Runtime multiplies int8 of a MatMul, not of a Gemm with a float32 bias
        assert "Gemm" not in facts.audit
        assert facts.audit["MatMul"]["int8"] > 0
    else:
        assert facts.audit["Gemm"].keys() == {precision}
    assert said[-1].startswith(f"{precision}: ")
    assert len(said) == (4 if precision == "int8" else 1)
    if "tensorrt-rtx" in installed_flavours():
        build(target, trained_file.parent, precision=precision)


def test_weights_beside_the_graph_are_too_large(external_file: Path, images: NDArray[np.float32]) -> None:
    assert operator_dtypes(external_file)["MatMul"] == {"fp32": 12}
    with pytest.raises(UsageError, match=r"big\.onnx has its weights in a second file.*Leave it at fp32"):
        reduce(external_file, "fp16", images)


@pytest.mark.parametrize("precision", ["fp32", "fp4"])
def test_a_precision_that_is_none_is_refused_and_the_old_file_stays(
    tmp_path: Path, onnx_file: Path, images: NDArray[np.float32], precision: Any
) -> None:
    target = tmp_path / "m.onnx"
    target.write_bytes(b"old")
    with pytest.raises(UsageError, match=f"precision '{precision}' is none to reduce to; choose from fp16"):
        reduced_from_onnx(onnx_file, target, precision, calibration=images, checked=images, limits=LOOSE)
    assert target.read_bytes() == b"old"
