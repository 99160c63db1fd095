"""Exit codes, and commands that need no run."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable

import click
import pytest
from command_line import in_process

from vitcompress.core.errors import DataError, EnvironmentLacksError, ResultError, RunInterrupted, UsageError
from vitcompress.pipeline import cli


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make `compress doctor` raise."""

    def arrange(error: BaseException) -> None:
        def fail() -> int:
            raise error

        monkeypatch.setitem(cli.cli.commands, "doctor", click.Command("doctor", callback=fail))

    return arrange


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("bad words"), 2),
        (ResultError("bad words"), 1),
        (EnvironmentLacksError("bad words"), 3),
        (RunInterrupted("bad words"), 130),
        (OSError(28, "bad words", "/disk/file"), 2),
        (ZeroDivisionError("bad words"), 2),
    ],
)
def test_errors_end_with_their_code_and_one_line(
    raising: Callable[[BaseException], None], error: Exception, code: int
) -> None:
    raising(error)
    told = in_process("doctor")
    assert (told.code, told.out) == (code, "")
    assert "bad words" in told.err
    assert len(told.err.splitlines()) == 1
    assert told.err.startswith("error: ") == (code != 130)
    again = in_process("doctor", "--debug")
    assert again.code == code
    assert "Traceback" in again.err


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


def test_an_error_of_a_loader_process_is_told_in_its_own_words(
    raising: Callable[[BaseException], None],
) -> None:
    raising(DataError("Caught it.\nOriginal Traceback (most recent call last):\n  File\nx.DataError: image a: b.png\n"))
    told = in_process("doctor")
    assert (told.code, told.err) == (2, "error: image a: b.png\n")


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
    command = f"{shlex.join([sys.executable, '-c', code, 'doctor'])} | head -n 1"
    done = subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "name\n"
    assert done.stderr == ""


def test_starting_imports_nothing_heavy() -> None:
    heavy = {"torch", "timm", "onnx", "onnxruntime", "yaml"}
    code = f"import sys, vitcompress.pipeline.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
