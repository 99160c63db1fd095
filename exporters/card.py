"""The model card of a bundle: what it is, what goes in and out, how to run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.preprocess import PreprocessSpec


def _lines(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``facts`` as one list item a value, nested names joined by dots."""
    lines: list[str] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            lines += _lines(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            lines.append(f"- {prefix}{name}: {', '.join(map(str, value)) or 'none'}")
        else:
            lines.append(f"- {prefix}{name}: {value}")
    return lines


def _engine(facts: Mapping[str, Any]) -> str:
    engine = facts.get("engine")
    engine = engine if isinstance(engine, Mapping) else {}
    hardware = ", ".join(map(str, engine.get("hardware", ()))) or "not recorded"
    kind = " ".join(str(engine[name]) for name in ("flavour", "version") if name in engine) or "TensorRT"
    batches = ", ".join(
        f"{name} {engine[f'{name}_batch']}" for name in ("min", "opt", "max") if f"{name}_batch" in engine
    )
    return "\n".join(
        [
            f"`model.engine` is a {kind} engine with the same input and output.",
            "",
            f"- Runs on: {hardware}{_kind_of_hardware(engine)}",
            f"- Batch sizes: {batches or 'not recorded'}",
            "- It loads only in the TensorRT it was built with; elsewhere, use `model.onnx` or build it again.",
        ]
    )


def _kind_of_hardware(engine: Mapping[str, Any]) -> str:
    kinds = ["NVIDIA compute capabilities"] if engine.get("flavour") == "tensorrt-rtx" else []
    kinds += [str(engine["hardware_source"])] if engine.get("hardware_source") else []
    return f" ({', '.join(kinds)})" if kinds else ""


def model_card(
    *, preprocess: PreprocessSpec, labels: Sequence[str], facts: Mapping[str, Any], outside: Sequence[str], engine: bool
) -> str:
    """README.md of a bundle, Markdown.

    Args:
        outside: files beside ``model.onnx`` that it needs (external weights), by name.
    """
    size = preprocess.size
    resized = "both sides" if preprocess.crop_mode == "squash" else "shorter side"
    needs = f" (it needs {', '.join(outside)} beside it)" if outside else ""
    parts = [
        "# Image classifier made by `compress`",
        f"A Vision Transformer of {len(labels)} classes for {size} x {size} pixel images, distilled and exported.",
        "## Input and output",
        "\n".join(
            [
                f"`model.onnx`{needs}:",
                "",
                f"- `images`: float32 `[batch, 3, {size}, {size}]`, RGB, prepared as `preprocess.json` says: "
                f"{resized} resized to {size} / {preprocess.crop_pct:g} pixels ({preprocess.interpolation}), "
                f"centre crop, scaled to [0, 1], minus {list(preprocess.mean)}, divided by {list(preprocess.std)}.",
                f"- `logits`: float32 `[batch, {len(labels)}]`; line i of `labels.txt`, from 0, names logit i.",
            ]
        ),
        "## Run it",
        "With `compress` and onnxruntime installed:\n\n```\ncompress predict THIS_FOLDER IMAGE_OR_FOLDER...\n```\n"
        "Every file is checked against `manifest.json` (size and SHA-256) before use.",
    ]
    if engine:
        parts += ["## TensorRT", _engine(facts)]
    if facts:
        parts += ["## Facts", "\n".join(_lines(facts))]
    return "\n\n".join(parts) + "\n"
