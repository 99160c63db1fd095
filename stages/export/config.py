"""Settings of export (torch-free)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from core.record import Record


class ExportConfig(Record):
    """Which artifacts are made, and what they must agree on."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    projector: Literal["fold", "keep", "auto"] = "fold"
    """A lift's projector in the deployed graph: fold away, keep, or auto: fold unless the kept one measures faster."""
    opset: int = Field(20, ge=18, le=23)
    """ONNX operator set; 20 keeps LayerNormalization and Gelu single operators."""
    max_batch: int = Field(32, ge=8)
    """Largest batch the engine takes. The ONNX graph has no largest batch."""
    opt_batch: int = Field(8, ge=1)
    """Batch the engine is fastest at."""
    tolerance: float = Field(1e-3, gt=0)
    """Largest accepted difference in logits between an ONNX graph and torch on real images."""
    images: int = Field(16, gt=0)
    """Held-out images they are compared on."""
    engine: Literal["auto", "tensorrt", "tensorrt-rtx", "none"] = "auto"
    """TensorRT engine to build. auto: tensorrt where it and a GPU are, else tensorrt-rtx where installed, else none."""
    engine_reason: str = ""
    """Why `engine` is what it is; written when `auto` is decided, not meant to be set."""
    compute_capabilities: tuple[str, ...] = ()
    """GPU generations a tensorrt-rtx engine is built for, such as 8.6; empty for the builder's default."""

    @model_validator(mode="after")
    def _batches_in_order(self) -> Self:
        if self.opt_batch > self.max_batch:
            raise ValueError(f"opt_batch {self.opt_batch} is larger than max_batch {self.max_batch}")
        return self
