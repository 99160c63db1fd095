"""How the command ends as a process: gloo's threads must not meet the interpreter's own end (see `process`)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import atexit, sys
import vitcompress.__main__ as command

class Kept:
    def __del__(self):
        print("finalized")

kept = Kept()
atexit.register(print, "at exit")

def main():
    print("said", end=" ")
    sys.exit(5)

command.main = main
command.process()
"""


@pytest.mark.parametrize(("processes", "said"), [("1", "said at exit\nfinalized\n"), ("2", "said at exit\n")])
def test_one_of_several_processes_ends_before_the_interpreter_does(processes: str, said: str) -> None:
    environment = {**os.environ, "WORLD_SIZE": processes, "RANK": "0"}
    ended = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (5, said, "")
