"""What a bundle consists of: the names of its files, and the models in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from vitcompress.core.artifact_records import Precision, Runtime
from vitcompress.core.errors import UsageError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.bundled import Kind

SCHEMA = 2
"""Of the manifest; another one is not read."""
PREPROCESS, LABELS, MANIFEST, README, INFER = "preprocess.json", "labels.txt", "manifest.json", "README.md", "infer.py"
SBOM, PROVENANCE = "sbom.cdx.json", "provenance.json"
SIGNATURE = f"{MANIFEST}.sigstore.json"
"""Of the manifest, beside it (``signature.py``); a bundle that is written again has none."""
JUDGE = "judge"
"""Folder of what only judging needs: an opened bundle need not have it."""
FP32_GRAPH = "model.onnx"
"""The graph that every bundle has."""
_OURS = re.compile(
    r"preprocess\.json|labels\.txt|manifest\.json(\.sigstore\.json)?|README\.md|infer\.py|sbom\.cdx\.json|provenance\.json"
    rf"|model(\.({'|'.join(get_args(Precision))}))?\.(onnx|[a-z0-9-]+\.[a-z0-9.]+)"
    r"|timm/(config\.json|(model|student)\.safetensors)"
    r"|torch/student\.pt2"
    r"|judge/[^/]+"
    r"|triton/[^/]+/(config\.pbtxt|labels\.txt|1/model\.(onnx|plan))"
    r"|web/index\.html"
)


def is_ours(relative: str) -> bool:
    """Return whether a path relative to a bundle is one that this program gives."""
    return _OURS.fullmatch(relative) is not None


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
    """Names of the classes; none of a model that gives embeddings."""
    manifest: dict[str, Any]
    models: tuple[ModelFile, ...]
    default: Mapping[Kind, str]
    """The recommended model of each kind, by name; no ``engine`` where none is recommended."""
    thresholds: tuple[float, ...] = ()
    """Where an image has several labels: the probability (sigmoid) of each above which it is given; else empty."""

    @property
    def task(self) -> str:
        """What its models give (``core.records.Task``)."""
        return str(self.manifest.get("task", "classification"))

    def model(self, wanted: str) -> ModelFile:
        """Return a model by its name, by its file's name, or the recommended one by its kind (``onnx`` or ``engine``).

        Raises:
            UsageError: the bundle has no such model.
        """
        name = dict(self.default).get(wanted, wanted)  # type: ignore[call-overload]  # any word may be asked for
        for model in self.models:
            if name in (model.name, model.path.name):
                return model
        choices = ", ".join([*self.default, *(model.path.name for model in self.models)])
        raise UsageError(f"bundle '{self.root}' has no model '{wanted}'; choose one of {choices}.")
