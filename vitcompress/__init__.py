"""Compress Vision Transformers from a wide teacher to a small deployable student.

The folders of this package stand beside it in the repository (``core``, ``exporters``, ``stages``, ``pipeline``); the
links in this folder are where Python, type checkers and editors find them.
"""
