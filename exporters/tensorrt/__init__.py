"""An ONNX file as a TensorRT engine: one path for ``tensorrt`` 10 and 11 and for ``tensorrt_rtx``.

The two differ in what they need and what they promise. ``tensorrt`` builds on a GPU, for that GPU. ``tensorrt_rtx``
builds anywhere, for a list of compute capabilities, and compiles the rest on the GPU it first runs on. Only calls
that every version has are used; precision comes from the ONNX file alone (a strongly typed network), since the
builder's precision flags are gone from version 11 and could be silently ignored before. What came of it is audited.

flavours  which of the two is here, and which to use
log       the builder's messages, kept and searched for reasons
build     the engine
audit     the dtype every layer of it really computes in
failures  a failed build in one sentence that names the ONNX node
"""

from vitcompress.exporters.tensorrt.audit import (
    PRODUCTS,
    builder_audit,
    check_precision,
    engine_audit,
    information_of,
    network_audit,
    precision_seen,
)
from vitcompress.exporters.tensorrt.build import EngineFacts, HardwareSource, Tensor, engine_from_onnx
from vitcompress.exporters.tensorrt.flavours import (
    MODULES,
    RTX_DEFAULT,
    Flavour,
    capability_names,
    choose_flavour,
    installed_flavours,
    load_tensorrt,
)
from vitcompress.exporters.tensorrt.log import TensorrtLog

__all__ = [
    "MODULES",
    "PRODUCTS",
    "RTX_DEFAULT",
    "EngineFacts",
    "Flavour",
    "HardwareSource",
    "Tensor",
    "TensorrtLog",
    "builder_audit",
    "capability_names",
    "check_precision",
    "choose_flavour",
    "engine_audit",
    "engine_from_onnx",
    "information_of",
    "installed_flavours",
    "load_tensorrt",
    "network_audit",
    "precision_seen",
]
