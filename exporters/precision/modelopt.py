"""bf16 and fp8 through NVIDIA ModelOpt, an optional extra."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vitcompress.core.errors import EnvironmentLacksError, ResultError
from vitcompress.exporters.precision.graph import FP32_OPERATORS, SourceGraph, one_line

PACKAGES = ("nvidia-modelopt", "onnx-graphsurgeon", "lief")
"""What the extra `modelopt` installs. ModelOpt's own extra ``onnx`` pins older onnx and onnxruntime-gpu than this
project's."""

_INSTALL = f"pip install {' '.join(PACKAGES)}"
_NEED_IT = ("bf16", "fp8")


def require_precision(precision: str) -> None:
    """Raise an EnvironmentLacksError for a precision that needs ModelOpt, where that is not installed."""
    if precision in _NEED_IT and importlib.util.find_spec("modelopt") is None:
        raise EnvironmentLacksError(f"{precision} needs NVIDIA ModelOpt, which is not installed; run {_INSTALL}.")


def bf16_from_fp32(source: SourceGraph, kept: Collection[str] = ()) -> Any:
    """Return a bf16 copy of the graph by AutoCast; LayerNormalization, Softmax, input and output stay in fp32.

    AutoCast's own exclusion of nodes with large values is off: bf16 has the range of fp32. An EnvironmentLacksError is
    raised where ModelOpt is not installed, a ResultError where AutoCast failed.
    """
    autocast = _load("modelopt.onnx.autocast")
    with _running("AutoCast", source) as path:
        return autocast.convert_to_mixed_precision(
            onnx_path=str(path),
            low_precision_type="bf16",
            nodes_to_exclude=_patterns(kept),
            op_types_to_exclude=sorted(FP32_OPERATORS),
            data_max=float("inf"),
            keep_io_types=True,
            providers=["cpu"],
        )


def fp8_from_fp32(source: SourceGraph, images: NDArray[Any], kept: Collection[str] = ()) -> Any:
    """Return an fp8 (E4M3) copy of the graph: pairs of QuantizeLinear and DequantizeLinear, calibrated by the maximum.

    Attention's own products and everything but products stay in fp32. ModelOpt leaves some products out by itself:
    convolutions of few channels, and matrices too narrow for fp8 kernels. Errors are those of ``bf16_from_fp32``.
    """
    import onnx

    quantization = _load("modelopt.onnx.quantization")
    with _running("quantization to fp8", source) as path:
        target = path.with_name("fp8.onnx")
        quantization.quantize(
            str(path),
            quantize_mode="fp8",
            calibration_data={source.input: images},
            calibration_method="max",
            calibration_eps=["cpu"],
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
            nodes_to_exclude=_patterns(kept),
            disable_mha_qdq=True,
            high_precision_dtype="fp32",
            output_path=str(target),
            log_level="ERROR",
        )
        return onnx.load(target)


def modelopt_version() -> str:
    """Return ModelOpt's version; raise as ``bf16_from_fp32`` does."""
    return str(_load("modelopt").__version__)


def _load(module: str) -> Any:
    with _without_messages():
        try:
            return importlib.import_module(module)
        except ImportError as error:  # ModelOpt's own, when one of its libraries is missing, is an ImportError too
            raise EnvironmentLacksError(
                f"bf16 and fp8 need NVIDIA ModelOpt, which cannot be loaded ({one_line(error)}); run {_INSTALL}."
            ) from error


def _patterns(names: Collection[str]) -> list[str]:
    """Return regular expressions of whole names: ModelOpt's match a name's beginning."""
    return [f"{re.escape(name)}$" for name in sorted(names)]


@contextlib.contextmanager
def _running(what: str, source: SourceGraph) -> Iterator[Path]:
    """Give ModelOpt the graph as a file, turn its errors into ours, and silence it."""
    with _without_messages(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "source.onnx"
        path.write_bytes(source.model.SerializeToString())
        try:
            yield path
        except Exception as error:  # asserts, ValueErrors and ONNX's own: it has no base class
            raise ResultError(
                f"NVIDIA ModelOpt's {what} failed ({type(error).__name__}: {one_line(error)})."
            ) from error


@contextlib.contextmanager
def _without_messages() -> Iterator[None]:
    """Silence messages, progress and warnings of libraries, which are about their own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
