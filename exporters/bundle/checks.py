"""Whether the parts of a bundle fit together, found out before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from vitcompress.core.errors import BundleError, UsageError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.bundle.layout import INFER, LABELS, MANIFEST, PREPROCESS, README
from vitcompress.exporters.bundled import BundledModel, GraphFacts, Kind, Part, file_name, graph_facts, kind_of

_RESERVED = (INFER, LABELS, MANIFEST, PREPROCESS, README)


def checked_parts(
    models: Sequence[BundledModel],
    default: Mapping[Kind, str],
    preprocess: PreprocessSpec,
    labels: Sequence[str],
    extra: Mapping[str, Path],
) -> dict[str, Part]:
    """The models by name, with their names in the bundle.

    Raises:
        UsageError: two of them are alike, a recommended one is missing, labels or preprocessing do not fit, weights are
            in several files, or an extra file's name is taken or leaves the bundle.
        BundleError: a file is missing, or no image classifier.
    """
    for label in labels:
        if not label or "\n" in label or "\r" in label:
            raise UsageError(f"label {label!r} is empty or has a line break; labels.txt holds one label a line.")
    _check_names(models, default)
    graphs = {model.name: graph_facts(model.source) for model in models if model.runtime == "onnx"}
    recommended = graphs[default["onnx"]]
    parts = {}
    for model in models:
        if not model.source.is_file():
            raise BundleError(f"{model.source} does not exist.")
        if model.runtime == "onnx":
            _check_interface(model.source, graphs[model.name], preprocess, labels)
        data = _data_of(model, graphs[model.name]) if model.runtime == "onnx" else None
        name = file_name(model.runtime, model.precision)
        parts[model.name] = Part(model, name, data, graphs.get(model.name, recommended))
    _check_extra(extra, parts)
    return parts


def _check_names(models: Sequence[BundledModel], default: Mapping[Kind, str]) -> None:
    for model in models:
        if model.runtime == "torch":
            raise UsageError(
                f"model '{model.name}' is for torch; a bundle holds ONNX graphs and what is built of them."
            )
    for what, values in (
        ("name", [model.name for model in models]),
        ("file", [file_name(model.runtime, model.precision) for model in models]),
    ):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise UsageError(f"two models have the {what} '{twice[0]}' in the bundle; give one of each.")
    if "onnx" not in default:
        raise UsageError("a bundle recommends one ONNX graph, and none was given; name it in default['onnx'].")
    kinds = {model.name: kind_of(model.runtime) for model in models}
    for kind, name in default.items():
        if kinds.get(name) != kind:
            known = ", ".join(name for name, its in kinds.items() if its == kind) or "none"
            raise UsageError(f"'{name}' is to be the recommended {kind}, and is none; the bundle has {known}.")


def _check_interface(path: Path, facts: GraphFacts, preprocess: PreprocessSpec, labels: Sequence[str]) -> None:
    if facts.classes != len(labels):
        raise UsageError(f"{path} has {facts.classes} outputs, {len(labels)} labels were given; give one an output.")
    if facts.size != preprocess.size:
        raise UsageError(f"{path} takes {facts.size} pixel images, the preprocessing gives {preprocess.size}.")
    if facts.input != preprocess.input:
        raise UsageError(f"{path} takes {facts.input} images, the preprocessing gives {preprocess.input}.")
    if len(facts.outside) > 1:
        raise UsageError(f"{path} has its weights in {len(facts.outside)} files; save it with one beside the graph.")


def _data_of(model: BundledModel, facts: GraphFacts) -> Path | None:
    """The file with a graph's external weights, if it has one."""
    if not facts.outside:
        return None
    data = model.source.parent / facts.outside[0]
    if not data.is_file():
        raise BundleError(f"{data}, with weights of {model.source.name}, does not exist.")
    return data


def _check_extra(extra: Mapping[str, Path], parts: Mapping[str, Part]) -> None:
    taken = {*_RESERVED, *(part.file for part in parts.values()), *(part.data_name for part in parts.values())}
    for name, source in extra.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.parts[:1] in ((), ("triton",)) or str(path) in taken:
            raise UsageError(f"a further file cannot be called '{name}' in a bundle; give a free name inside it.")
        if not source.is_file():
            raise BundleError(f"{source}, to be '{name}' in the bundle, does not exist.")
