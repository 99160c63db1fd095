"""``python -m pipeline``: the command line, for launchers such as ``accelerate launch -m pipeline run ...``."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
