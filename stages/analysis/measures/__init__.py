"""The measures of one tap, each in a module of its own.

Every one takes a chunk of images' tokens ``X_BND``: float64 ``[B, N, D]`` on any device. In float64 no square of a
float32 overflows or vanishes, equal energies stay equal to far less than ``results.TIE``, and it costs little more.
"""
