"""The control: the student's training once more without the teacher, which tells what the teacher was worth.

A room of distillation, not beside it: it trains by the same code, so that whatever changes there changes here too.
"""
