"""ncnn: a network for edge boxes and phones, run by a library without dependencies. pnnx converts it."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact
from vitcompress.core.errors import ResultError
from vitcompress.core.processes import own_program
from vitcompress.exporters.bundled import GraphFacts, Part, graph_facts
from vitcompress.exporters.one_image import one_image, planes
from vitcompress.exporters.runners.ncnn import HINT, IMAGES, LOGITS, MISSING, PIXELS, NcnnRunner, import_ncnn
from vitcompress.exporters.targets.target import Availability, BuildOptions, Target, installed_versions

if TYPE_CHECKING:
    from torch import nn

LIMITS = {"fp32": 1e-3, "fp16": 0.03}
"""Largest accepted difference from torch on random images, relative to the largest logit."""
_RUN = """
import numpy, pathlib
from vitcompress.exporters.runners.ncnn import NcnnRunner
folder = pathlib.Path(sys.argv[1])
with NcnnRunner(folder / "model.ncnn.param", 1) as runner:
    found = [runner.infer(image[None]) for image in numpy.load(folder / "images.npy")]
numpy.save(folder / "logits.npy", numpy.concatenate(found))
"""


class NcnnTarget(Target):
    """A network for one image at a time; fp16 is what its weights are stored in."""

    name = "ncnn"
    title = "ncnn"
    page = "docs/ncnn.md"
    precisions = ("fp32", "fp16")
    default_precisions = ("fp32",)
    suffix = ".param"
    runs_on = "cpu"
    distributions = ("ncnn",)
    note = "Its weights are beside it, in the .bin file of the same name. It takes one image at a time."

    def available(self) -> Availability:
        """Look for ncnn, and for pnnx, which converts."""
        here = find_spec("ncnn") is not None and find_spec("pnnx") is not None
        return Availability(here, "ncnn and pnnx are installed" if here else MISSING.replace("is", "or pnnx is", 1))

    def build(self, graph: OnnxArtifact, options: BuildOptions) -> EngineArtifact:
        """Convert the network in torch, with weights stored in the graph's precision.

        A ResultError is raised for operators that ncnn lacks, and where ncnn fails or answers differently than torch.
        """
        self.require()
        if options.module is None:
            raise ResultError("ncnn is converted from the network in torch, and only its ONNX graph is known")
        started = time.perf_counter()
        facts = graph_facts(options.root / graph.file.path)
        path, module = options.file(graph, self.name, self.suffix), options.module()
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as name:
            folder, beside = Path(name), path.with_suffix(".bin")
            _convert(module, facts, graph.precision, folder)
            _check(module, facts, folder, LIMITS[graph.precision])
            path.unlink(missing_ok=True)  # the old network does not fit the new weights
            (folder / "model.ncnn.bin").replace(beside)
            (folder / "model.ncnn.param").replace(path)
        version = installed_versions(self.distributions)["ncnn"]
        return self.built(graph, options, started, path, beside, version=version)

    def open(self, path: Path, threads: int | None = None) -> NcnnRunner:
        """Load a network, on ``threads`` of the CPU."""
        return NcnnRunner(path, threads)

    def load_library(self) -> None:
        """Import ncnn."""
        import_ncnn()

    def add_files(self, bundle: Path, parts: Sequence[Part], labels: Sequence[str]) -> str:
        """Return how a program in C++ or Python runs the bundle's network."""
        files = self.files_in(bundle, parts)
        if not files:
            return ""
        spec = json.loads((bundle / "preprocess.json").read_text())
        kind = {1: "GRAY", 3: "RGB"}.get(len(spec["mean"]), "...") if spec.get("bits", 8) == 8 else "..."
        rows = [255 * one for one in spec["mean"]], [1 / (255 * one) for one in spec["std"]]
        floats = spec["input"] == "float"
        images, prepared = (IMAGES, "normalised") if floats else (PIXELS, "pixels from 0 to 255")
        scale = _NORMALISE.format(*(", ".join(f"{one:.7g}f" for one in row) for row in rows)) if floats else ""
        return _USAGE.format(
            images=images, prepared=prepared, scale=scale, kind=kind, size=spec["size"], logits=LOGITS,
            param=files[0], weights=Path(files[0]).with_suffix(".bin"),
        )  # fmt: skip


def _convert(module: nn.Module, facts: GraphFacts, precision: str, folder: Path) -> None:
    """Write ``model.ncnn.param`` and ``model.ncnn.bin`` into ``folder``; a ResultError is raised where pnnx cannot."""
    import torch

    images = torch.zeros(1, facts.channels, facts.size, facts.size)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer, which pnnx needs: that it is deprecated, and of constants
            whole = one_image(planes(module) if facts.input == "uint8" else module, images)
            trace: Any = torch.jit.trace
            trace(whole, images, check_trace=False).save(str(folder / "model.pt"))
    except Exception as error:  # torch.export and the tracer let through whatever the module raises
        why = " ".join(str(error).split())[:200]
        raise ResultError(f"torch cannot trace {type(module).__name__} ({type(error).__name__}: {why})") from error
    shape = ",".join(map(str, images.shape))
    pnnx: Any = find_spec("pnnx")  # its program is beside its Python package, which only calls it
    program = str(Path(pnnx.origin).with_name("pnnx"))
    said = _run([program, "model.pt", f"inputshape=[{shape}]", f"fp16={int(precision == 'fp16')}"], folder, "pnnx")
    lines = [line.split() for line in (folder / "model.ncnn.param").read_text().splitlines()]
    # pnnx leaves an operator that ncnn does not have under torch's name, such as torch.unbind or Tensor.reshape.
    unknown = sorted({line[0] for line in lines[2:] if "." in line[0] or ":" in line[0]})
    if unknown:
        why = "; ".join(sorted({line for line in said.splitlines() if "not supported" in line or "exceeds" in line}))
        raise ResultError(f"pnnx has no ncnn layer for {', '.join(unknown)}{f' ({why[:200]})' if why else ''}")
    names = {"in0": PIXELS if facts.input == "uint8" else IMAGES, "out0": LOGITS}
    named = [" ".join(names.get(word, word) for word in line) for line in lines]
    named[2] += f" 0={facts.size} 1={facts.size} 2={facts.channels}"
    named[-1] += f" {HINT}=4,1,{facts.classes},1,1"
    (folder / "model.ncnn.param").write_text("\n".join(named) + "\n")


def _check(module: nn.Module, facts: GraphFacts, folder: Path, limit: float) -> None:
    """Run what was made, in a process of its own since ncnn may crash, and compare it with torch on random images."""
    import torch

    random, shape = np.random.default_rng(0), (2, *facts.images.shape)
    floats, pixels = random.standard_normal(shape).astype(np.float32), random.integers(0, 256, shape, dtype=np.uint8)
    images = pixels if facts.input == "uint8" else floats
    np.save(folder / "images.npy", images)
    _run(own_program(_RUN, str(folder)), folder, "ncnn")
    with torch.no_grad():
        expected = module(torch.from_numpy(images)).numpy()
    difference = float(np.abs(np.load(folder / "logits.npy") - expected).max() / np.abs(expected).max())
    if not difference <= limit:
        raise ResultError(
            f"what pnnx made of it answers differently than torch: logits change by {difference:.2g} of the largest, "
            f"more than {limit:g}"
        )


def _run(command: list[str], folder: Path, what: str) -> str:
    """Run a command in ``folder`` and return what it said; a ResultError is raised where it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    said = done.stdout + done.stderr
    if done.returncode or not (folder / "model.ncnn.param").is_file():
        last = (said.strip().splitlines() or [""])[-1]
        raise ResultError(f"{what} failed on the converted network (status {done.returncode}: {last[:200]})")
    return said


_NORMALISE = """
const float mean[] = {{{}}};
const float factor[] = {{{}}};
in.substract_mean_normalize(mean, factor);  // ncnn spells it so"""
_USAGE = """\
With ncnn, in C++ (`rgb` is the image resized and cropped as `preprocess.json` says):

```cpp
#include "net.h"

ncnn::Net net;
net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = false;
net.load_param("{param}"), net.load_model("{weights}");
ncnn::Mat in = ncnn::Mat::from_pixels(rgb, ncnn::Mat::PIXEL_{kind}, {size}, {size});{scale}
ncnn::Extractor extractor = net.create_extractor();
extractor.input("{images}", in);
ncnn::Mat logits;
extractor.extract("{logits}", logits);
```

In Python (`pip install ncnn`; `image`: float32 `[C, {size}, {size}]`, {prepared}):

```python
net = ncnn.Net()
net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
net.load_param("{param}"), net.load_model("{weights}")
extractor = net.create_extractor()
extractor.input("{images}", ncnn.Mat(image).clone())
logits = numpy.array(extractor.extract("{logits}")[1])
```"""
