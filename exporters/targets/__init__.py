"""What a network can be deployed to: one file a target, and the registry of them.

target        the door: what a target says of itself, ``available``, ``build``, ``open``, and what it adds to a bundle
onnx_runtime  the ONNX graph itself, run by ONNX Runtime
tensorrt      engines of TensorRT, for the GPU they are built on
tensorrt_rtx  engines of TensorRT-RTX, built on any machine
openvino      OpenVINO's IR, for CPUs
executorch    programs for phones and small devices, run by XNNPACK
aotinductor   native code for this kind of processor, run by libtorch
litert        a .tflite file of LiteRT, converted in an environment of its own
ncnn          networks for edge boxes and phones, converted by pnnx
coreml        ML programs for Apple's devices
web           the graph in onnxruntime-web, and a page that classifies images without a server
triton        a model repository for Triton, made of the bundle's models

To add a target, write its file and a line in ``BUILT_IN``. Another package adds one by an entry point of the group
``vitcompress.targets`` that names a subclass of ``Target``.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from vitcompress.core.errors import UsageError
from vitcompress.core.extensions import load
from vitcompress.exporters.targets.aotinductor import AotInductorTarget
from vitcompress.exporters.targets.coreml import CoremlTarget
from vitcompress.exporters.targets.executorch import ExecutorchTarget
from vitcompress.exporters.targets.litert import LitertTarget
from vitcompress.exporters.targets.ncnn import NcnnTarget
from vitcompress.exporters.targets.onnx_runtime import OnnxTarget
from vitcompress.exporters.targets.openvino import OpenvinoTarget
from vitcompress.exporters.targets.target import Availability, BuildOptions, Target, installed_versions
from vitcompress.exporters.targets.tensorrt import TensorrtTarget
from vitcompress.exporters.targets.tensorrt_rtx import TensorrtRtxTarget
from vitcompress.exporters.targets.triton import TritonTarget
from vitcompress.exporters.targets.web import WebTarget

GROUP = "vitcompress.targets"
"""Of the entry points by which other packages add targets."""
BUILT_IN: dict[str, Target] = {
    OnnxTarget.name: OnnxTarget(),
    TensorrtTarget.name: TensorrtTarget(),
    TensorrtRtxTarget.name: TensorrtRtxTarget(),
    OpenvinoTarget.name: OpenvinoTarget(),
    ExecutorchTarget.name: ExecutorchTarget(),
    AotInductorTarget.name: AotInductorTarget(),
    LitertTarget.name: LitertTarget(),
    NcnnTarget.name: NcnnTarget(),
    CoremlTarget.name: CoremlTarget(),
    WebTarget.name: WebTarget(),
    TritonTarget.name: TritonTarget(),
}
"""In the order in which an engine is recommended where there are several."""


@cache
def registered() -> dict[str, Target]:
    """Return every target by name; a UsageError is raised if another package's does not load or its name is taken."""
    found = dict(BUILT_IN)
    for entry in entry_points(group=GROUP):
        target: Target = load(entry, "target", lambda kind: kind())
        if target.name in found:
            raise UsageError(f"target '{target.name}' of {entry.value} has a name that is taken.")
        found[target.name] = target
    return found


def get(name: str) -> Target:
    """Return the target of a name, another package's too; a UsageError is raised where none has it."""
    found = BUILT_IN.get(name) or registered().get(name)
    if found is None:
        raise UsageError(f"target '{name}' is not known; choose from {', '.join(registered())}.")
    return found


__all__ = ["BUILT_IN", "GROUP", "Availability", "BuildOptions", "Target", "get", "installed_versions", "registered"]
