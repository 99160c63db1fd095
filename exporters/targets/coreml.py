"""Core ML: an ML program for Apple's devices, converted on any machine and run on macOS alone.

The artifact is one file, the ``.mlpackage`` folder as a zip archive: the same network gives the same bytes.
"""

from __future__ import annotations

import json
import tempfile
import time
import uuid
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact, OperatorDtypes, Precision
from vitcompress.core.errors import ResultError
from vitcompress.exporters.bundled import GraphFacts, Part, graph_facts
from vitcompress.exporters.one_image import planes
from vitcompress.exporters.runners.coreml import MISSING, PACKAGE, CoremlRunner, quiet_coremltools
from vitcompress.exporters.targets.target import Availability, BuildOptions, Target, installed_versions

if TYPE_CHECKING:
    from torch import nn

PRODUCTS = frozenset({"conv", "linear", "matmul", "einsum"})
"""MIL's operators that multiply matrices."""
_DTYPES = {"FLOAT16": "fp16", "FLOAT32": "fp32"}


class CoremlTarget(Target):
    """An ML program for one image at a time: the neural engine takes no flexible batch."""

    name = "coreml"
    title = "Core ML"
    page = "docs/coreml.md"
    precisions = ("fp32", "fp16")
    default_precisions = ("fp32", "fp16")
    suffix = ".mlpackage.zip"
    runs_on = "cpu"
    distributions = ("coremltools",)
    note = "Unzip it: Core ML and Xcode open the folder inside. It runs on iOS 15, macOS 12 and later."

    def available(self) -> Availability:
        """Look for coremltools, which converts on Linux and macOS."""
        here = find_spec("coremltools") is not None
        return Availability(here, "coremltools is installed; Core ML itself runs on macOS alone" if here else MISSING)

    def build(self, graph: OnnxArtifact, options: BuildOptions) -> EngineArtifact:
        """Convert the network in torch to a package in the graph's precision.

        A ResultError is raised for an operator that coremltools does not know, and where the program that came out does
        not multiply in the precision.
        """
        self.require()
        if options.module is None:
            raise ResultError("Core ML is converted from the network in torch, and only its ONNX graph is known")
        started = time.perf_counter()
        facts = graph_facts(options.root / graph.file.path)
        path = options.file(graph, self.name, self.suffix)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            package, draft = Path(folder) / PACKAGE, Path(folder) / path.name
            with quiet_coremltools() as coremltools:
                spec = _converted(coremltools, options.module(), facts, graph.precision, package)
            counts = operator_dtypes(spec)
            wrong = sorted(kind for kind in PRODUCTS & set(counts) if set(counts[kind]) != {graph.precision})
            if wrong:
                found = ", ".join(f"{kind} {counts[kind]}" for kind in wrong)
                raise ResultError(f"coremltools made products that are not in {graph.precision}: {found}")
            _describe(spec.description.metadata, facts, options)
            model = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
            model.write_bytes(spec.SerializeToString(deterministic=True))
            _archive(package, draft)
            draft.replace(path)
        version = installed_versions(self.distributions)["coremltools"]
        return self.built(graph, options, started, path, version=version, built_layers=counts)

    def open(self, path: Path, threads: int | None = None) -> CoremlRunner:
        """Load a package on macOS; Core ML chooses ``threads`` itself."""
        return CoremlRunner(path)

    def load_library(self) -> None:
        """Import coremltools."""
        with quiet_coremltools():
            pass

    def add_files(self, bundle: Path, parts: Sequence[Part], labels: Sequence[str]) -> str:
        """Return how an app for Apple's devices runs the bundle's packages."""
        files = self.files_in(bundle, parts)
        if not files:
            return ""
        images, logits, size = parts[0].interface.images, parts[0].interface.logits, parts[0].interface.size
        given = (_IMAGE if images.dtype == "uint8" else _FLOATS).format(shape=list(images.shape), size=size)
        return _SWIFT.format(file=files[0], package=PACKAGE, images=images.name, logits=logits.name, given=given)


def _converted(coremltools: Any, module: nn.Module, facts: GraphFacts, precision: Precision, package: Path) -> Any:
    """Convert a network into ``package`` and return its description; a ResultError: coremltools refuses it."""
    import torch

    shape = (1, facts.channels, facts.size, facts.size)
    given = coremltools.TensorType(name=facts.images.name, shape=shape)
    if facts.input == "uint8":
        layout = {1: "GRAYSCALE", 3: "RGB"}.get(facts.channels)
        if layout is None:
            raise ResultError(f"Core ML's images have 1 or 3 channels, not {facts.channels}; use export.input=float")
        module = planes(module)
        given = coremltools.ImageType(
            name=facts.images.name, shape=shape, color_layout=getattr(coremltools.colorlayout, layout)
        )
    try:
        with torch.no_grad():
            program = torch.export.export(module, (torch.zeros(shape),)).run_decompositions({})
        made = coremltools.convert(
            program,
            inputs=[given],
            outputs=[coremltools.TensorType(name=facts.logits.name)],
            convert_to="mlprogram",
            minimum_deployment_target=coremltools.target.iOS15,
            compute_precision=getattr(coremltools.precision, precision.replace("fp", "FLOAT")),
            skip_model_load=True,
            package_dir=str(package),
        )
    except Exception as error:  # coremltools and torch.export let through whatever happens inside
        line = next(iter(str(error).split("\n\n")), "")
        why = f"{type(error).__name__}: {' '.join(line.split())[:200]}"
        raise ResultError(f"coremltools cannot convert {type(module).__name__} ({why})") from error
    return made.get_spec()


def operator_dtypes(spec: Any) -> OperatorDtypes:
    """Return operators of an ML program by type and by the dtype of what they give; constants are left out."""
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    found: OperatorDtypes = {}
    for one in block.operations:
        if one.type != "const":
            kind = one.outputs[0].type.tensorType
            name = kind.DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number[kind.dataType].name
            dtype = _DTYPES.get(name, name.lower())
            counts = found.setdefault(one.type, {})
            counts[dtype] = counts.get(dtype, 0) + 1
    return {kind: found[kind] for kind in sorted(found)}


def _describe(about: Any, facts: GraphFacts, options: BuildOptions) -> None:
    """Write what Xcode shows, and what an app needs: labels and preprocessing."""
    about.author = "compress (vitcompress)"
    about.license = "Not stated: the licences of the training data and of the teacher's weights bind this model too."
    what = "embeddings" if facts.embeds else "logits"
    about.shortDescription = f"Image classifier: {what} of {facts.size} x {facts.size} pixel images, one at a time."
    about.userDefined.pop("com.github.apple.coremltools.conversion_date", None)  # the same bytes on another day
    about.userDefined["labels"] = json.dumps(options.labels)
    if options.preprocess is not None:
        about.userDefined["preprocess"] = options.preprocess.model_dump_json()


def _archive(package: Path, path: Path) -> None:
    """Zip a package: no dates, files in order, and identifiers in its manifest that depend on the files' names only."""
    manifest = package / "Manifest.json"
    text = manifest.read_text()
    for identifier, item in json.loads(text)["itemInfoEntries"].items():
        text = text.replace(identifier, str(uuid.uuid5(uuid.NAMESPACE_URL, item["path"])).upper())
    manifest.write_text(json.dumps(json.loads(text), indent=4, sort_keys=True) + "\n")
    with zipfile.ZipFile(path, "w") as archive:  # weights do not become smaller by packing
        for file in sorted(one for one in package.rglob("*") if one.is_file()):
            entry = zipfile.ZipInfo(file.relative_to(package.parent).as_posix())
            entry.external_attr = 0o644 << 16  # `unzip` gives files these permissions
            archive.writestr(entry, file.read_bytes())


_SWIFT = """\
On macOS and iOS, in Swift, after `unzip {file}` (preprocessing: `preprocess.json`):

```swift
import CoreML

let compiled = try MLModel.compileModel(at: URL(fileURLWithPath: "{package}"))
let model = try MLModel(contentsOf: compiled)
{given}
let features = try MLDictionaryFeatureProvider(dictionary: ["{images}": input])
let logits = try model.prediction(from: features).featureValue(for: "{logits}")!.multiArrayValue!
```"""
_FLOATS = """\
let array = try MLMultiArray(shape: [1] + {shape}, dataType: .float32)
// array[[0, c, y, x]] = (pixel / 255 - mean[c]) / std[c] of the resized and cropped image
let input = MLFeatureValue(multiArray: array)"""
_IMAGE = """\
// cropped: a CGImage, resized and cropped; the model normalises
let input = try MLFeatureValue(cgImage: cropped, pixelsWide: {size}, pixelsHigh: {size},
                               pixelFormatType: kCVPixelFormatType_32BGRA, options: nil)"""
