"""TensorRT-RTX: an engine built on any machine for a list of GPU generations, compiled further where it first runs."""

from __future__ import annotations

from vitcompress.core.artifact_records import Precision
from vitcompress.exporters.targets.target import BuildOptions
from vitcompress.exporters.targets.tensorrt import TensorrtTarget

FP8_CAPABILITIES = ("8.9", "12.0")
"""GPU generations with fp8 products (Ada, Blackwell) among those that tensorrt-rtx builds for."""


class TensorrtRtxTarget(TensorrtTarget):
    """An engine of ``tensorrt_rtx``."""

    name = "tensorrt-rtx"
    title = "TensorRT-RTX"
    distributions = ("tensorrt-rtx",)

    def capabilities(self, precision: Precision, options: BuildOptions) -> tuple[str, ...]:
        """Return the GPU generations asked for; of fp8, where none were, the ones that multiply it."""
        return options.compute_capabilities or (FP8_CAPABILITIES if precision == "fp8" else ())
