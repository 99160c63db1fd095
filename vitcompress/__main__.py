"""The command as a process: `compress`, and ``python -m vitcompress``."""

import atexit
import os
import sys

from vitcompress.core.errors import RunInterrupted, RunPreempted
from vitcompress.core.processes import world_size
from vitcompress.pipeline.cli import main


def process() -> None:
    """Run the command line and end; when interrupted, without waiting for loader processes.

    One process of several ends without the interpreter's own end.

    There, a thread of gloo that still holds the tensor of the last message asks for an interpreter that is gone, and
    aborts the process: a refused setting came back as a death by SIGABRT in about one run of ten.
    """
    try:
        main()
    except SystemExit as end:
        if end.code in (RunInterrupted.exit_code, RunPreempted.exit_code):
            import multiprocessing

            for child in multiprocessing.active_children():
                child.terminate()
        if world_size() == 1:
            raise
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


if __name__ == "__main__":
    process()
