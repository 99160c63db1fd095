"""Running exported files: one way to ask, whatever runs underneath.

A runner checks its input's dtype, shape and batch before anything runs, because the runtimes' own words for a wrong
one name neither what was given nor what is possible.

base       what every runner promises
ort        an ONNX file in ONNX Runtime
engine     a TensorRT engine, run and timed on the GPU
gpu_times  what is timed there, and energy
web        an ONNX file in onnxruntime-web, in Node
"""

from vitcompress.exporters.runners.base import Runner
from vitcompress.exporters.runners.engine import EngineRunner
from vitcompress.exporters.runners.ort import PROVIDERS, OnnxRunner, Provider, provider_for

__all__ = ["PROVIDERS", "EngineRunner", "OnnxRunner", "Provider", "Runner", "provider_for"]
