"""LiteRT (once TensorFlow Lite): a ``.tflite`` file for phones and small boards, converted from the torch network.

The converter, litert-torch, wants other versions of packages than this program: it has an environment of its own, and
runs there in a process of its own.
"""

from __future__ import annotations

import importlib.util
import math
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact
from vitcompress.core.errors import ResultError
from vitcompress.exporters.bundled import GraphFacts, Part, graph_facts
from vitcompress.exporters.environments import environment, fault, make_python, packages_of, python_of
from vitcompress.exporters.runners.litert import INSTALL, LitertRunner, import_interpreter
from vitcompress.exporters.targets.target import Availability, BuildOptions, Target

LIMIT_SECONDS = 3600.0
"""After which a conversion is given up; DeiT-Tiny takes about a minute."""
_CONVERT = """
import sys
import litert_torch, torch
from ai_edge_quantizer import quantizer, recipe

program, logits, precision, path = sys.argv[1:]

class Named(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network, self.training = network, False  # an exported network refuses eval(), and needs none

    def forward(self, images):
        return {logits: self.network(images)}

saved = torch.export.load(program)
module, (args, _) = Named(saved.module()), saved.example_inputs
wide = path if precision == "fp32" else path + ".wide"
litert_torch.convert(module, sample_kwargs={"images": args[0]}).export(wide)
if precision == "int8":
    quantizer.Quantizer(wide, recipe.dynamic_wi8_afp32()).quantize().export_model(path)
"""
_USE = """\
`{file}` runs with LiteRT (once TensorFlow Lite), one image at a time: {facts.images.dtype} {shape}, resized, \
{prepared} as `preprocess.json` says. In Python (`pip install ai-edge-litert`):

```python
import json, pathlib
from ai_edge_litert.interpreter import Interpreter
from infer import prepare  # of this bundle: does what preprocess.json says

run = Interpreter("{file}", num_threads=4).get_signature_runner()
images = prepare(pathlib.Path("image.jpg"), json.loads(pathlib.Path("preprocess.json").read_text()))
logits = run({facts.images.name}=images)["{facts.logits.name}"]  # float32 [1, {facts.classes}]
```

In Kotlin, on Android (`implementation("com.google.ai.edge.litert:litert:1.4.0")`):

```kotlin
import org.tensorflow.lite.Interpreter

val interpreter = Interpreter(File(path), Interpreter.Options().setNumThreads(4))
val images = ByteBuffer.allocateDirect({bytes}).order(ByteOrder.nativeOrder())  // fill it
val logits = Array(1) {{ FloatArray({facts.classes}) }}
interpreter.run(images.rewind(), logits)
```

In Swift, on iOS (`pod 'TensorFlowLiteSwift'`):

```swift
import TensorFlowLite

let interpreter = try Interpreter(modelPath: path)
try interpreter.allocateTensors()
try interpreter.copy(images, toInputAt: 0)  // Data of {bytes} bytes
try interpreter.invoke()
let logits = try interpreter.output(at: 0).data.withUnsafeBytes {{ Array($0.bindMemory(to: Float32.self)) }}
```"""


class LitertTarget(Target):
    """The network as a ``.tflite`` file for one image at a time.

    In int8 the weights are int8 by channel. What they are multiplied with becomes int8 as it runs, by its own range, so
    there is no calibration.
    """

    name = "litert"
    title = "LiteRT"
    page = "docs/litert.md"
    precisions = ("fp32", "int8")
    default_precisions = ("fp32", "int8")
    suffix = ".tflite"
    runs_on = "cpu"
    distributions = ("ai-edge-litert",)
    requirements = ("litert-torch==0.10.*",)
    note = "It takes one image at a time, and runs on Android, iOS, Linux and macOS with this LiteRT or a later one."

    def available(self) -> Availability:
        """Look for LiteRT's module, and for the environment with its converter."""
        why = [] if importlib.util.find_spec("ai_edge_litert") else [f"LiteRT is not installed; run {INSTALL}"]
        if wrong := fault(self):
            why.append(f"LiteRT's converter {wrong}; run compress target install {self.name}")
        return Availability(not why, " and ".join(why) or "LiteRT and its converter are installed")

    def install(self, folder: Path, say: Callable[[str], None]) -> None:
        """Install the converter."""
        make_python(folder, self.requirements, say)

    def build(self, graph: OnnxArtifact, options: BuildOptions) -> EngineArtifact:
        """Convert the network in torch, in its environment's Python."""
        self.require()
        started = time.perf_counter()
        if options.module is None:
            raise ResultError("LiteRT's file is made of the network in torch, and only its ONNX graph is here")
        path, facts = options.file(graph, self.name, self.suffix), graph_facts(options.root / graph.file.path)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            program, draft = Path(folder) / "program.pt2", Path(folder) / path.name
            _save_program(options, facts, program)
            _convert(python_of(environment(self.name)), program, facts.logits.name, graph.precision, draft)
            draft.replace(path)
        version = packages_of(self).get("litert-torch")
        return self.built(graph, options, started, path, version=version, max_batch=options.max_batch)

    def open(self, path: Path, threads: int | None = None) -> LitertRunner:
        """Load the file."""
        return LitertRunner(path, threads)

    def load_library(self) -> None:
        """Import LiteRT's interpreter."""
        import_interpreter()

    def add_files(self, bundle: Path, parts: Sequence[Part], labels: Sequence[str]) -> str:
        """Add nothing; say how to run the recommended file, else the widest."""
        files = self.files_in(bundle, parts)
        if not files:
            return ""
        facts = parts[0].interface
        pixels = facts.input == "uint8"
        return _USE.format(
            file=files[0],
            facts=facts,
            shape=[1, *facts.images.shape],
            prepared="cropped" if pixels else "cropped and normalised",
            bytes=math.prod(facts.images.shape) * (1 if pixels else 4),
        )


def _save_program(options: BuildOptions, facts: GraphFacts, path: Path) -> None:
    """Write the network as a program of torch, for one image; a ResultError is raised where torch cannot."""
    import torch

    assert options.module is not None  # noqa: S101 - build has looked
    example = torch.zeros(1, *facts.images.shape, dtype=getattr(torch, facts.images.dtype))
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that weights share memory, which the file keeps
            torch.export.save(torch.export.export(options.module(), (example,)), path)
    except Exception as error:  # whatever the module's forward or torch.export raises
        raise ResultError(f"torch cannot export the network ({_last_line(str(error))})") from error


def _convert(python: Path, program: Path, output: str, precision: str, path: Path) -> None:
    """Run the converter; a ResultError with its last words is raised where it fails, or takes too long."""
    words = [str(python), "-I", "-c", _CONVERT, str(program), output, precision, str(path)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ResultError(f"LiteRT's converter was given up after {LIMIT_SECONDS:g} s") from error
    if done.returncode or not path.is_file():
        said = _last_line(done.stderr) or f"it ended with status {done.returncode}"
        raise ResultError(f"LiteRT's converter failed ({said})")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300].rstrip(".") if lines else ""
