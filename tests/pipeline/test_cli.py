"""Exit codes, and commands that need no run."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys

import click
import pytest
from command_line import document, in_process

from vitcompress.core.errors import (
    DataError,
    EnvironmentLacksError,
    ProcessLost,
    ResultError,
    RunInterrupted,
    UsageError,
)
from vitcompress.pipeline import cli
from vitcompress.pipeline.commands.output import json_option


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("bad words"), 2),
        (click.BadParameter("bad words"), 2),
        (ResultError("bad words"), 1),
        (EnvironmentLacksError("bad words"), 3),
        (ProcessLost("bad words"), 75),
        (RunInterrupted("bad words"), 130),
        (OSError(28, "bad words", "/disk/file"), 2),
        (ZeroDivisionError("bad words"), 2),
        (DataError("Caught it.\nOriginal Traceback (most recent call last):\n  File\nx.DataError: bad words\n"), 2),
    ],
)
def test_errors_end_with_their_code_and_one_line(error: Exception, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(as_json: bool) -> None:
        raise error

    monkeypatch.setitem(cli.cli.commands, "doctor", click.command("doctor")(json_option(fail)))
    told = in_process("doctor")
    assert (told.code, told.out) == (code, "")
    assert "bad words" in told.err
    assert len(told.err.splitlines()) == 1
    assert "Caught it" not in told.err  # what a loader process says is told in its own words
    assert told.err.startswith("error: ") == (code != 130)
    again = in_process("doctor", "--debug")
    assert again.code == code
    assert "Traceback" in again.err
    machine = in_process("doctor", "--json")
    found = document(machine.out, "error")["error"]
    assert (machine.code, machine.err, found["exit_code"]) == (code, told.err, code)
    assert found["message"] in told.err
    kinds = {click.BadParameter: "UsageError", ZeroDivisionError: "InternalError"}
    assert found["kind"] == kinds.get(type(error), type(error).__name__)


@pytest.mark.parametrize(
    ("number", "command", "sentence"),
    [
        (signal.SIGTERM, "doctor", "stopped."),
        (signal.SIGINT, "verify", "stopped; the same command goes on from what is saved."),
    ],
)
def test_interrupting_is_130_and_one_sentence(
    number: signal.Signals, command: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked() -> None:
        os.kill(os.getpid(), number)
        pytest.fail("the request was swallowed")

    monkeypatch.setitem(cli.cli.commands, command, click.Command(command, callback=asked))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        told = in_process(command)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert (told.code, told.err.strip()) == (130, sentence)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ((), "Commands:"),
        (("run", "-h"), "--strategy"),
        (("--version",), "compress, version"),
        (("recipes",), "digits"),
        (("recipes", "show", "digits"), "source: digits"),
        (("models", "deit_tiny*"), "deit_tiny_patch16_224"),
    ],
)
def test_commands_that_only_tell(words: tuple[str, ...], part: str) -> None:
    told = in_process(*words)
    assert told.code == 0
    assert part in told.out


def test_a_reader_that_leaves_is_no_error() -> None:
    code = (
        "import click, vitcompress.__main__, vitcompress.pipeline.cli\n"
        "def tell():\n    for _ in range(100_000):  # more than a pipe holds\n        click.echo('name')\n"
        "vitcompress.pipeline.cli.cli.commands['doctor'] = click.Command('doctor', callback=tell)\n"
        "vitcompress.__main__.process()\n"
    )
    command = f"set -o pipefail; {shlex.join([sys.executable, '-c', code, 'doctor'])} | head -n 1"
    done = subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 141, done.stderr
    assert done.stdout == "name\n"
    assert done.stderr == ""


def test_starting_imports_nothing_heavy() -> None:
    heavy = {"torch", "timm", "onnx", "onnxruntime", "yaml"}
    code = f"import sys, vitcompress.pipeline.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# gloo's threads must not meet the interpreter's own end (see `process`)
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


def test_a_group_without_a_command_shows_what_it_has_and_is_no_error_of_words() -> None:
    told = in_process("data")
    assert told.code == 2
    assert "pack" in told.err
    assert "error:" not in told.err
