"""Distillation: losses over logits and taps, and the stage that trains the student with them."""
