"""`compress sweep`: many runs over a space of settings, and what they give: accuracy against latency, and a choice.

space     which values each setting may take, checked before anything trains
store     the folder of a sweep: its plan, and Optuna's study
trial     one trial in its own process: a run up to its export, with the teacher of an earlier one
worker    keeps K trials at work, and prunes; several workers may share a sweep
judge     finishes trained trials one at a time, and times what they deploy side by side
result    the Pareto table, the chosen trial, and their files
"""
