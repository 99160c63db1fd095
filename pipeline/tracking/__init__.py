"""Experiment trackers (W&B, MLflow, TensorBoard, Trackio): what a run sends to them, if it is asked to."""
