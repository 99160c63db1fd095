"""How far a reduced graph's logits are from the fp32 graph's, in ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.artifact_records import Precision
from vitcompress.core.errors import ResultError
from vitcompress.exporters.bundled import EMBEDDING
from vitcompress.exporters.precision.graph import one_line
from vitcompress.exporters.runners.ort import import_onnxruntime

_BATCH = 16
"""Images a run: what activations need stays small, and results do not depend on it."""


@dataclass(frozen=True)
class Deviation:
    """Two sets of logits ``[N, K]`` compared; infinite, with no agreement, where a value is no number."""

    relative: float
    """Largest absolute difference over the spread of the fp32 logits.

    The spread is an image's largest logit minus its smallest, averaged over images. An absolute limit would mean
    nothing: the logits of a trained network are about ten times those of an untrained one (spread 12.8 against 1.8,
    measured), and rounding errors grow with them, while the class they point to does not change.
    """
    rms: float
    """Root mean square of the differences, over the same spread."""
    agreement: float
    """Share of images whose largest logit is the same one; of embeddings see ``deviation``."""


@dataclass(frozen=True)
class Limits:
    """How far a reduced graph may be from fp32, over the checked images, before nodes are left in fp32."""

    difference: float
    """Largest ``Deviation.relative``."""
    agreement: float
    """Smallest ``Deviation.agreement``."""


LIMITS: dict[Precision, Limits] = {
    "fp16": Limits(difference=0.01, agreement=0.98),
    "bf16": Limits(difference=0.06, agreement=0.95),
    "int8": Limits(difference=0.15, agreement=0.9),
    "fp8": Limits(difference=0.2, agreement=0.9),
    "int4": Limits(difference=0.3, agreement=0.85),
}
"""Three to nine times what trained networks showed (docs/precision.md): they catch what is broken, not what is coarse.

What coarseness costs in accuracy is for a gate on the whole held-out set to tell.
"""


def deviation(found: NDArray[np.float32], expected: NDArray[np.float32], model: Any = None) -> Deviation:
    """Compare logits with the fp32 graph's, both ``[N, K]``; or embeddings, if the ``model`` (a graph) gives these.

    Embeddings agree where that of an image is nearer to its own of fp32 than to any other image's.
    """
    if not np.isfinite(found).all():
        return Deviation(relative=float("inf"), rms=float("inf"), agreement=0.0)
    spread = max(float(np.ptp(expected, axis=1).mean()), float(np.finfo(np.float32).tiny))
    answer, own = found.argmax(axis=1), expected.argmax(axis=1)
    if model is not None and model.graph.output[0].name == EMBEDDING:
        answer, own = (found @ expected.T).argmax(axis=1), np.arange(len(found))
    difference = found.astype(np.float64) - expected
    return Deviation(
        relative=float(np.abs(difference).max()) / spread,
        rms=float(np.sqrt((difference**2).mean())) / spread,
        agreement=float((answer == own).mean()),
    )


def logits_of(model: Any, images: NDArray[Any], *, optimised: bool) -> NDArray[np.float32]:
    """Return logits ``[N, K]`` of a ``ModelProto`` in ONNX Runtime on the CPU.

    It runs ``optimised``, with operators fused, as by default; else literally, one by one, which gives the same on
    every CPU (fused int8 products saturate on those without VNNI). An EnvironmentLacksError is raised where ONNX
    Runtime is not installed, a ResultError where it cannot run the graph.
    """
    session = session_of(model, optimised=optimised)
    name = session.get_inputs()[0].name
    parts = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
    try:
        logits = [session.run(None, {name: np.ascontiguousarray(part)})[0] for part in parts]
    except Exception as error:  # ONNX Runtime's errors share no base but this
        raise ResultError(f"ONNX Runtime failed on the graph ({one_line(error)}).") from error
    return np.concatenate(logits).astype(np.float32, copy=False)


def session_of(model: Any, *, optimised: bool) -> Any:
    """Return an ONNX Runtime session on the CPU of a ``ModelProto``; ``optimised`` and errors as for ``logits_of``."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails is raised as well
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base but this
        raise ResultError(f"ONNX Runtime cannot run the graph on the CPU ({one_line(error)}).") from error
