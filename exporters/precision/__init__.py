"""Reduced-precision ONNX graphs (fp16, bf16, int8, fp8, int4), audited; nodes that cannot take it are left in fp32."""
