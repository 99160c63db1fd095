"""An ONNX file as a TensorRT engine: one path for ``tensorrt`` 10 and 11 and for ``tensorrt_rtx``.

The two differ in what they need and what they promise. ``tensorrt`` builds on a GPU, for that GPU. ``tensorrt_rtx``
builds anywhere, for a list of compute capabilities, and compiles the rest on the GPU it first runs on. Only calls
that every version has are used; precision comes from the ONNX file alone (a strongly typed network), since the
builder's precision flags are gone from version 11 and could be silently ignored before. What came of it is audited.

flavours  which of the two is here, and which to use
log       the builder's messages, kept, and a failed build in one sentence that names the ONNX node
build     the engine
layers    the layers of the engine, as the builder logs them or the engine's inspector tells
audit     the dtype every layer of it really computes in
trace     the ONNX nodes that every layer was built of, and what each matrix product became
"""

from vitcompress.exporters.tensorrt.build import EngineFacts as EngineFacts
from vitcompress.exporters.tensorrt.build import engine_from_onnx as engine_from_onnx
from vitcompress.exporters.tensorrt.build import trace_path as trace_path
from vitcompress.exporters.tensorrt.flavours import choose_flavour as choose_flavour
from vitcompress.exporters.tensorrt.flavours import installed_flavours as installed_flavours
from vitcompress.exporters.tensorrt.flavours import load_tensorrt as load_tensorrt
