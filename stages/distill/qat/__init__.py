"""Quantisation-aware distillation: a few epochs more, with the rounding of the int8 graph in the student.

A room of distillation, not beside it: it trains by the same code, so that whatever changes there changes here too.
"""
