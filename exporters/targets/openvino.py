"""OpenVINO: an IR for Intel's runtime, for CPUs of Intel, AMD and Arm."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact
from vitcompress.core.errors import ResultError
from vitcompress.exporters.bundled import Part
from vitcompress.exporters.runners.openvino import INSTALL, OpenvinoRunner, core_of, import_openvino
from vitcompress.exporters.targets.target import Availability, BuildOptions, Target, installed_versions

_USE = """\
`{file}` and its weights, `{weights}`, run with OpenVINO; the two stay together. In Python (`pip install openvino`):

```python
import json, pathlib
import openvino
from infer import prepare  # of this bundle: decodes, resizes, crops and normalises as preprocess.json says

settings = {{"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}}
model = openvino.Core().compile_model("{file}", "CPU", settings)
images = prepare(pathlib.Path("image.jpg"), json.loads(pathlib.Path("preprocess.json").read_text()))
logits = model(images)[0]  # float32 [1, {classes}]
```

In C++:

```cpp
#include <openvino/openvino.hpp>

// images: {dtype} {shape}, contiguous, prepared as preprocess.json says
std::vector<float> run({ctype}* images, size_t batch) {{
    static ov::Core core;
    static auto request = core.compile_model("{file}", "CPU",
        ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
        ov::hint::inference_precision(ov::element::f32)).create_infer_request();
    request.set_input_tensor(ov::Tensor(ov::element::{kind}, {{batch, {dims}}}, images));
    request.infer();
    auto logits = request.get_output_tensor();
    return {{logits.data<float>(), logits.data<float>() + logits.get_size()}};
}}
```"""


class OpenvinoTarget(Target):
    """The graph as OpenVINO's IR: ``.xml`` and ``.bin``."""

    name = "openvino"
    title = "OpenVINO"
    page = "docs/openvino.md"
    precisions = ("fp32", "fp16", "int8")
    default_precisions = ("fp32", "int8")
    suffix = ".xml"
    runs_on = "cpu"
    distributions = ("openvino",)
    note = "It runs on CPUs of Intel, AMD and Arm, with this version of OpenVINO or a later one."

    def available(self) -> Availability:
        """Look for OpenVINO's module."""
        here = importlib.util.find_spec("openvino") is not None
        return Availability(here, f"OpenVINO is {'installed' if here else f'not installed; run {INSTALL}.'}")

    def build(self, graph: OnnxArtifact, options: BuildOptions) -> EngineArtifact:
        """Convert the graph in its own precision; batches of any size can be run.

        By ``read_model``, not ``convert_model``, which gives the same and reports each use to OpenVINO's makers.
        """
        ov, started = import_openvino(), time.perf_counter()
        path = options.file(graph, self.name, self.suffix)
        weights = path.with_suffix(".bin")
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            draft = Path(folder) / path.name
            try:
                model = core_of(ov).read_model(str(options.root / graph.file.path))
                ov.save_model(model, str(draft), compress_to_fp16=graph.precision == "fp16")
            except RuntimeError as error:
                why = " ".join(str(error).split())[-300:].rstrip(".")
                raise ResultError(f"OpenVINO cannot convert the {graph.precision} graph ({why}).") from error
            draft.with_suffix(".bin").replace(weights)  # the file that is opened comes last
            draft.replace(path)
        facts = {"version": installed_versions(self.distributions).get("openvino"), "layers": graph.operators}
        return self.built(graph, options, started, path, weights, max_batch=options.max_batch, **facts)

    def open(self, path: Path, threads: int | None = None) -> OpenvinoRunner:
        """Compile the IR for this CPU."""
        return OpenvinoRunner(path, threads)

    def load_library(self) -> None:
        """Import OpenVINO."""
        import_openvino()

    def add_files(self, bundle: Path, parts: Sequence[Part], labels: Sequence[str]) -> str:
        """Add nothing; say how to run the recommended IR, else the widest."""
        files = self.files_in(bundle, parts)
        if not files:
            return ""
        interface = parts[0].interface
        dims = ", ".join(map(str, interface.images.shape))
        pixels = interface.input == "uint8"
        return _USE.format(
            file=files[0],
            weights=Path(files[0]).with_suffix(".bin"),
            classes=interface.classes,
            dtype=interface.images.dtype,
            shape=f"[batch, {dims}]",
            dims=dims,
            ctype="uint8_t" if pixels else "float",
            kind="u8" if pixels else "f32",
        )
