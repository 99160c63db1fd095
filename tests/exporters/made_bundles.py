"""Bundles of tiny models, made in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import LABELS

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.bundle import BundledModel, CardFacts, write_bundle

CARD = CardFacts(
    teacher="cait_s24_224, a file of the user's",
    student="deit_tiny_patch16_224, 60,000 parameters",
    strategy="last block widened to 64",
    data="scikit-learn's digits",
    data_digest="d" * 64,
    train_images=1438,
    held_out_images=359,
)
RTX = {
    "version": "1.7.1",
    "hardware": ["8.0", "8.6"],
    "hardware_source": "documented default",
    "min_batch": 1,
    "opt_batch": 2,
    "max_batch": 6,
}


def fp32(onnx_file: Path, **facts: Any) -> BundledModel:
    return BundledModel("student", onnx_file, "onnx", "fp32", facts={"max_batch": 8, "opt_batch": 4, **facts})


def make(folder: Path, onnx_file: Path, spec: PreprocessSpec, **changes: Any) -> tuple[Path, ...]:
    """Write a bundle of one graph; ``changes`` replace arguments of ``write_bundle``."""
    parts: dict[str, Any] = {
        "models": [fp32(onnx_file)],
        "default": {"onnx": "student"},
        "preprocess": spec,
        "labels": LABELS,
        "card": CARD,
        "facts": {"graph": "plain"},
    }
    return write_bundle(folder, **{**parts, **changes})


def with_engine(onnx_file: Path, engine: Path) -> dict[str, Any]:
    """Arguments of ``make`` for a graph and an engine."""
    engine.write_bytes(b"an engine")
    models = [fp32(onnx_file), BundledModel("rtx fp16", engine, "tensorrt-rtx", "fp16", facts=RTX)]
    return {"models": models, "default": {"onnx": "student", "engine": "rtx fp16"}}
