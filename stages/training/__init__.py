"""The training engine: device seam, loop, schedule, checkpoints. A library that stages share; it imports no stage."""
