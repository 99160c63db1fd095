"""ExecuTorch: a program for phones and small devices, its products run by XNNPACK."""

from __future__ import annotations

import importlib.util
import re
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact
from vitcompress.core.files import reference, write_atomic
from vitcompress.exporters.bundled import Part
from vitcompress.exporters.programs import building, in_words, network, program
from vitcompress.exporters.runners.executorch import ExecutorchRunner, import_runtime
from vitcompress.exporters.targets.target import Availability, BuildOptions, Target

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram
    from torch.fx import GraphModule
    from torch.fx.passes.infra.pass_base import PassResult

_USAGE = """\
### ExecuTorch

`{file}` takes {takes}. It gives {gives}. Link ExecuTorch with its XNNPACK backend.

```cpp
#include <executorch/extension/module/module.h>  // C++
#include <executorch/extension/tensor/tensor.h>
executorch::extension::Module module("{file}");
auto images = executorch::extension::from_blob(data, {{1, {shape}}}{cpp});
const float* logits = module.forward(images)->at(0).toTensor().const_data_ptr<float>();
```

```kotlin
import org.pytorch.executorch.*  // Android: org.pytorch:executorch-android
val module = Module.load(path)
val images = Tensor.{kotlin}(data, longArrayOf(1, {shape}))
val logits = module.forward(EValue.from(images))[0].toTensor().dataAsFloatArray
```

```swift
import ExecuTorch  // iOS, macOS
let module = Module(filePath: path)
let images = Tensor<{swift}>(&data, shape: [1, {shape}])
let logits: Tensor<Float> = try module.forward(images)
```
"""


class ExecutorchTarget(Target):
    """A program of ``executorch`` with the XNNPACK delegate."""

    name = "executorch"
    title = "ExecuTorch"
    page = "docs/executorch.md"
    precisions = ("fp32", "int8")
    default_precisions = ("fp32", "int8")
    suffix = ".pte"
    runs_on = "cpu"
    distributions = ("executorch", "torch")  # its metadata does not name torch, which its runtime imports
    note = "It runs on the CPU (ARM or x86-64) of Android, iOS, macOS, Linux and Windows, without Python."

    def available(self) -> Availability:
        """Look for ExecuTorch's package."""
        if importlib.util.find_spec("executorch") is None:
            return Availability(False, "ExecuTorch is not installed; run pip install 'vitcompress[executorch]'")
        return Availability(True, f"executorch {version('executorch')} is installed")

    def build(self, graph: OnnxArtifact, options: BuildOptions) -> EngineArtifact:
        """Build a program for batches of 1 to ``max_batch``; its log says what XNNPACK runs.

        In int8, linear layers alone are: weights by output channel, activations by token, as they come.
        """
        self.require()
        started = time.perf_counter()
        path = options.file(graph, self.name, self.suffix)
        log, max_batch = path.with_suffix(".log"), max(2, options.max_batch)  # torch.export refuses a range of one
        with building(self.title):
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.backends.xnnpack.utils.configs import get_transform_passes
            from executorch.exir import to_edge_transform_and_lower

            module, images = network(graph, options)
            traced = program(module, images, max_batch)
            if graph.precision == "int8":
                traced = program(_in_int8(traced, images), images, max_batch)
            passes = [_infer_batch, *get_transform_passes()]
            lowered = to_edge_transform_and_lower(traced, passes, partitioner=[XnnpackPartitioner()])
            write_atomic(log, delegation(lowered.exported_program().graph_module))
            write_atomic(path, lowered.to_executorch().buffer)
        facts = {"version": version("executorch"), "log": reference(log, options.root), "max_batch": max_batch}
        return self.built(graph, options, started, path, **facts)

    def open(self, path: Path, threads: int | None = None) -> ExecutorchRunner:
        """Load a program; an open one holds the process to its number of threads."""
        return ExecutorchRunner(path, threads)

    def load_library(self) -> None:
        """Import ExecuTorch's runtime."""
        import_runtime()

    def add_files(self, bundle: Path, parts: Sequence[Part], labels: Sequence[str]) -> str:
        """Return how to run a program of the bundle in C++, Kotlin and Swift; it adds no file."""
        files = self.files_in(bundle, parts)
        if not files:
            return ""
        interface = parts[0].interface
        pixels = interface.input == "uint8"
        return _USAGE.format(
            file=files[0],
            cpp=", executorch::aten::ScalarType::Byte" if pixels else "",
            kotlin="fromBlobUnsigned" if pixels else "fromBlob",
            swift="UInt8" if pixels else "Float",
            **in_words(interface),
        )


def _in_int8(traced: ExportedProgram, images: Tensor) -> nn.Module:
    """Return a network whose linear layers have int8 weights, and make int8 of what they get when it runs."""
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    quantizer = XNNPACKQuantizer().set_operator_type(torch.ops.aten.linear.default, config)
    prepared = prepare_pt2e(traced.module(), quantizer)
    with torch.no_grad():
        prepared(images)  # the ranges of weights are read when it runs
    converted: nn.Module = convert_pt2e(prepared)
    return converted


def _infer_batch(module: GraphModule) -> PassResult:
    """Let reshapes infer the one dimension that depends on the batch: XNNPACK takes no other with a dynamic batch."""
    from executorch.exir.dialects._ops import ops
    from torch.fx.passes.infra.pass_base import PassResult

    for node in module.graph.nodes:
        if node.target is ops.edge.aten.view_copy.default:
            sizes = [size if isinstance(size, int) else -1 for size in node.args[1]]
            if sizes.count(-1) == 1:
                node.update_arg(1, sizes)
    module.graph.eliminate_dead_code()
    module.recompile()
    return PassResult(module, True)


def delegation(lowered: GraphModule) -> str:
    """Return how many operators XNNPACK runs, and which are left to ExecuTorch's own kernels, in words."""
    parts = [node.name for node in lowered.graph.nodes if node.op == "get_attr" and node.name.startswith("lowered_")]
    within = [node for name in parts for node in getattr(lowered, name).original_module.graph.nodes]
    delegated = sum(node.op == "call_function" for node in within)
    calls = [node.name for node in lowered.graph.nodes if node.op == "call_function"]
    # Names are of the form aten_native_layer_norm_default_12; others are calls of parts and arithmetic of shapes.
    own = Counter(re.sub(r"(_\d+)*$", "", name) for name in calls if name.startswith(("aten_", "dim_", "quantized_")))
    left = ", ".join(f"{count} {name}" for name, count in own.most_common()) or "none"
    return f"XNNPACK runs {delegated} operators in {len(parts)} parts.\nLeft to ExecuTorch's own kernels: {left}.\n"
