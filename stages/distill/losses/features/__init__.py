"""Losses of two taps ``[B, C, H, W]``, in float32 and of one shape."""
