"""Reduced-precision ONNX graphs: fp16, bf16, int8 and fp8, audited, with the nodes that cannot take it left in fp32."""
