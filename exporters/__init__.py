"""From a trained module to files that can be deployed, and running those files again.

Nothing here imports torch, ONNX, ONNX Runtime or TensorRT until a function needs it: serving a bundle must not.
"""
