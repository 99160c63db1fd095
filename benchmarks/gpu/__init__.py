"""What a machine with a GPU shows of this project: `prove.py` runs the probes, `page.py` writes docs/gpu.md."""
