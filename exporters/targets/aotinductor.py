"""AOTInductor: the network compiled to native code, which libtorch runs without Python."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact
from vitcompress.core.machine import cpu_flags
from vitcompress.exporters.bundled import Part, graph_facts
from vitcompress.exporters.programs import building, in_words, network, program
from vitcompress.exporters.runners.aoti import FACTS, AotiRunner, import_torch, read_facts
from vitcompress.exporters.targets.target import Availability, BuildOptions, Target

_LEVEL = "x86-64-v3"
"""That packages are compiled for on x86-64 (AVX2). Wider instructions are used all the same where a processor has them:
by torch's matrix products, which choose when they run. The rest waits for memory."""
_AVX2 = frozenset({"avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"})
"""Flags of that level, in Linux's words."""
_USAGE = """\
### AOTInductor

`{file}` takes {takes}. It gives {gives}. It is native code for {hardware}; link libtorch {version}.

```cpp
#include <torch/torch.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
c10::InferenceMode guard;
torch::inductor::AOTIModelPackageLoader model("{file}");
at::Tensor images = torch::from_blob(data, {{1, {shape}}}, {type});
at::Tensor logits = model.run({{images}})[0];
```
"""


class AotInductorTarget(Target):
    """A package of ``torch._inductor`` for the processors of this machine's kind."""

    name = "aotinductor"
    title = "AOTInductor"
    page = "docs/aotinductor.md"
    precisions = ("fp32",)
    default_precisions = ("fp32",)
    suffix = ".pt2"
    runs_on = "cpu"
    distributions = ("torch",)
    note = "It is native code: it loads on this system and this kind of processor alone, in torch or libtorch."

    def available(self) -> Availability:
        """Look for torch and a C++ compiler."""
        if importlib.util.find_spec("torch") is None:
            return Availability(False, "torch is not installed; run pip install torch")
        wanted = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
        compiler = shutil.which(wanted)
        if compiler is None:
            return Availability(False, f"there is no C++ compiler ({wanted}); install it, or name another in CXX")
        return Availability(True, f"torch {version('torch')} and {compiler} are installed")

    def build(self, graph: OnnxArtifact, options: BuildOptions) -> EngineArtifact:
        """Compile a package for batches of 1 to ``max_batch``, in a folder of its own that is removed."""
        self.require()
        started = time.perf_counter()
        path, max_batch = options.file(graph, self.name, self.suffix), max(2, options.max_batch)
        with building(self.title), tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            from torch._inductor import aoti_compile_and_package, config
            from torch._inductor.utils import fresh_cache

            draft = Path(folder) / path.name
            module, images = network(graph, options)
            level = _LEVEL if platform.machine() == "x86_64" and "cpp.march" in config.get_config_copy() else ""
            facts = {
                "platform": sys.platform,
                "machine": platform.machine(),
                "level": level,
                "needs": sorted(_AVX2 if level else cpu_flags()),
                "torch": version("torch"),
                "dtype": str(images.dtype).removeprefix("torch."),
                "shape": [max_batch, *images.shape[1:]],
                "classes": graph_facts(options.root / graph.file.path).classes,
            }
            traced = program(module, images, max_batch)
            with fresh_cache(dir=folder):
                aoti_compile_and_package(traced, package_path=str(draft), inductor_configs=_settings(facts))
            draft.chmod(0o644)
            draft.replace(path)
        hardware = {"hardware": (_hardware(facts),), "hardware_source": "what it was compiled for"}
        return self.built(graph, options, started, path, version=version("torch"), max_batch=max_batch, **hardware)

    def open(self, path: Path, threads: int | None = None) -> AotiRunner:
        """Load a package on a processor of its kind."""
        return AotiRunner(path, threads)

    def load_library(self) -> None:
        """Import torch."""
        import_torch()

    def add_files(self, bundle: Path, parts: Sequence[Part], labels: Sequence[str]) -> str:
        """Return how to run a package of the bundle in C++; it adds no file."""
        files = self.files_in(bundle, parts)
        if not files:
            return ""
        facts, interface = read_facts(bundle / files[0]), parts[0].interface
        return _USAGE.format(
            file=files[0],
            hardware=_hardware(facts),
            version=facts["torch"],
            type="torch::kUInt8" if interface.input == "uint8" else "torch::kFloat32",
            **in_words(interface),
        )


def _settings(facts: dict[str, Any]) -> dict[str, Any]:
    """Return Inductor's settings: the same code on every x86-64, whatever the number of threads."""
    level = {"cpp.simdlen": 256, "cpp.march": _LEVEL, "cpp.vec_isa_ok": True} if facts["level"] else {}
    return {
        **level,
        "compile_threads": 1,
        # One of torch 2.14's patterns takes attention over tokens before images for attention over images before
        # tokens, and makes a fused product of it whose answers are wrong.
        "pattern_matcher": False,
        "cpp.dynamic_threads": True,  # else torch.set_num_threads when it runs changes nothing
        "aot_inductor.metadata": {FACTS: json.dumps(facts)},
        "aot_inductor.precompile_headers": False,  # they pay where many packages are compiled
    }


def _hardware(facts: dict[str, Any]) -> str:
    return f"{facts['platform']}, {facts['machine']}" + (" with AVX2" if facts["level"] else ", this very processor")
