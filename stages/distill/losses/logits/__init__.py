"""Losses of two answers, logits ``[B, K]``."""
