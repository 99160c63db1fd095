from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from reduced_models import LOOSE, digits, export, reduce, trained

from vitcompress.core.artifact_records import Precision
from vitcompress.core.errors import UsageError
from vitcompress.exporters.precision.audit import operator_dtypes
from vitcompress.exporters.precision.compare import LIMITS, deviation
from vitcompress.exporters.precision.reduce import reduced_from_onnx
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.exporters.tensorrt import engine_from_onnx, installed_flavours

PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_graph_runs_agrees_and_builds(tmp_path: Path, onnx_file: Path, precision: Precision) -> None:
    source = Path(shutil.copy(onnx_file, tmp_path / "fp32.onnx"))
    images = digits()[0][:96]
    facts = reduce(source, precision, images)
    target = source.with_name(f"{precision}.onnx")
    assert facts.how.kept_fp32 == ()
    assert facts.how.conversions == 1
    assert facts.bytes == target.stat().st_size < (0.62 if precision == "fp16" else 0.5) * source.stat().st_size
    assert facts.nodes == len(onnx.load(target).graph.node)
    assert facts.audit["LayerNormalization"].keys() == facts.audit["Softmax"].keys() == {"fp32"}
    assert facts.audit["Conv"].keys() == facts.audit["Gemm"].keys() == {precision}
    assert facts.how.difference is not None
    assert facts.how.as_run is not None
    assert 0 < facts.how.difference < (0.01 if precision == "fp16" else 0.2)
    with OnnxRunner(target) as runner, OnnxRunner(source) as full:
        found = deviation(runner.infer(images[48:]), full.infer(images[48:]))
    assert found.relative == pytest.approx(facts.how.as_run, rel=1e-3)
    if "tensorrt-rtx" in installed_flavours():
        engine_from_onnx(
            target,
            source.with_name("m.engine"),
            flavour="tensorrt-rtx",
            precision=precision,
            opt_batch=1,
            max_batch=4,
            log_path=source.with_name("m.log"),
        )


@pytest.fixture(scope="module")
def trained_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(trained(), tmp_path_factory.mktemp("trained") / "fp32.onnx")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_trained_network_is_far_within_the_default_limits(trained_file: Path, precision: Precision) -> None:
    images, classes = digits()
    with OnnxRunner(trained_file) as runner:
        assert (runner.infer(images[1400:]).argmax(axis=1) == classes[1400:]).mean() > 0.7
    limits = LIMITS[precision]
    said: list[str] = []
    facts = reduced_from_onnx(
        trained_file,
        trained_file.with_name("reduced.onnx"),
        precision,
        calibration=images[:200],
        checked=images[1400:],
        limits=limits,
        log=said.append,
    )
    assert facts.how.kept_fp32 == ()
    assert facts.how.difference is not None
    assert facts.how.difference < limits.difference / 2
    assert facts.how.agreement is not None
    assert facts.how.agreement > limits.agreement + (1 - limits.agreement) / 2
    assert facts.how.images == 397
    assert facts.how.calibration == ("200 training images, evenly spread" if precision == "int8" else "")
    assert said[-1].startswith(f"{precision}: ")
    assert len(said) == (4 if precision == "int8" else 1)


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
