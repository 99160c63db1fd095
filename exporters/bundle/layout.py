"""What a bundle consists of: the names of its files, and the models in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vitcompress.core.artifact_records import Precision, Runtime
from vitcompress.core.errors import UsageError
from vitcompress.core.preprocess import PreprocessSpec

SCHEMA = 2
READABLE = (1, 2)
"""Schemas that ``open_bundle`` reads. 1 had one ``model.onnx`` and at most one ``model.engine``."""
PREPROCESS, LABELS, MANIFEST, README, INFER = "preprocess.json", "labels.txt", "manifest.json", "README.md", "infer.py"
ONNX_1, ENGINE_1 = "model.onnx", "model.engine"
"""The models of a bundle of schema 1."""
Kind = Literal["onnx", "engine"]
KINDS: tuple[Kind, ...] = ("onnx", "engine")
"""What a bundle recommends one model of each."""

_OURS = re.compile(
    r"preprocess\.json|labels\.txt|manifest\.json|README\.md|infer\.py|model\.engine"
    r"|model(\.(fp16|bf16|int8|fp8))?\.(onnx(\.data)?|tensorrt(-rtx)?\.engine)"
    r"|timm/(config\.json|model\.safetensors)"
    r"|triton/[^/]+/(config\.pbtxt|labels\.txt|1/model([^/]*\.onnx(\.data)?|\.plan))"
)


def is_ours(relative: str) -> bool:
    """Whether a path relative to a bundle is one that only this program gives."""
    return _OURS.fullmatch(relative) is not None


def file_name(runtime: Runtime, precision: Precision) -> str:
    """The name of a model's file in a bundle: ``model.onnx``, ``model.int8.onnx``, ``model.fp16.tensorrt.engine``."""
    infix = "" if precision == "fp32" else f".{precision}"
    return f"model{infix}.onnx" if runtime == "onnx" else f"model{infix}.{runtime}.engine"


def kind_of(runtime: Runtime) -> Kind:
    """Whether a runtime's files are ONNX graphs or engines."""
    return "onnx" if runtime == "onnx" else "engine"


@dataclass(frozen=True)
class BundledModel:
    """A model to be put into a bundle."""

    name: str
    """What it is called in the manifest, the card and ``default``; unique."""
    source: Path
    runtime: Runtime
    """``onnx``, ``tensorrt`` or ``tensorrt-rtx``; with ``precision`` it makes the file's name."""
    precision: Precision
    data: Path | None = None
    """The graph's external weights; None: looked up in the graph, beside ``source``."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """JSON values for the manifest. The card shows ``top1``, ``top1_low``, ``top1_high`` (percent), ``drop``,
    ``drop_low``, ``drop_high`` (points), ``p50_ms``, ``p50_low``, ``p50_high`` (milliseconds at batch ``batch``),
    ``measured_on`` (machine, runtime and provider in words), ``unmeasured`` (why there are none of these),
    ``max_difference`` (of logits, from torch), ``agreement`` (share of images with the top-1 of fp32), ``kept_fp32``
    (names of nodes), and of an engine ``hardware``, ``hardware_source``, ``version``. ``min_batch``, ``opt_batch``,
    ``max_batch`` are what Triton is told."""


@dataclass(frozen=True)
class ModelFile:
    """A model in an opened bundle."""

    name: str
    path: Path
    runtime: Runtime
    precision: Precision


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every file was found as it was written."""

    root: Path
    preprocess: PreprocessSpec
    labels: tuple[str, ...]
    manifest: dict[str, Any]
    models: tuple[ModelFile, ...]
    default: Mapping[Kind, str]
    """The recommended model of each kind, by name; no ``engine`` where none is recommended."""

    @property
    def onnx(self) -> Path:
        """The recommended ONNX graph."""
        return self.model("onnx").path

    @property
    def engine(self) -> Path | None:
        """The recommended engine, if there is one."""
        return self.model("engine").path if "engine" in self.default else None

    def model(self, wanted: str) -> ModelFile:
        """A model by its name, by its file's name, or the recommended one by its kind (``onnx`` or ``engine``).

        Raises:
            UsageError: the bundle has no such model.
        """
        name = next((self.default[kind] for kind in KINDS if kind == wanted and kind in self.default), wanted)
        for model in self.models:
            if name in (model.name, model.path.name):
                return model
        choices = ", ".join([*self.default, *(model.path.name for model in self.models)])
        raise UsageError(f"bundle '{self.root}' has no model '{wanted}'; choose one of {choices}.")
