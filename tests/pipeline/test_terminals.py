"""What a terminal, a pipe and a log get; and what a shell completes."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from check.made_runs import made, written
from click.shell_completion import ShellComplete

from vitcompress.pipeline.cli import cli
from vitcompress.pipeline.commands.completion import COMPLETION, offer

PROGRAM = (sys.executable, "-m", "vitcompress")
UNSET = ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "TQDM_DISABLE")
BAR = """
import sys, time
from vitcompress.core.context import Context
from vitcompress.core.rundir import RunDirectory
from vitcompress.core.terminal import console, quiet_bars
from pathlib import Path
quiet_bars()
from vitcompress.stages.training.monitor import progress_bar
from tqdm import tqdm
context = Context(run=RunDirectory(Path("nowhere")), seed=0, console=console(stderr=True))
with progress_bar(context) as bar:
    bar.add_task("reading", total=2, rate="-")
list(tqdm(range(3)))
context.console.print("said [red]in one line[/red] " + "word " * 40)
"""


def environment(**given: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in UNSET}
    return {**kept, "TERM": "xterm", **given}


def in_pipe(*command: str, **given: str) -> tuple[str, str]:
    """Stdout and stderr of a command whose streams are pipes."""
    done = subprocess.run(command, env=environment(**given), capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def in_terminal(*command: str, columns: int = 80, **given: str) -> str:
    """What a terminal of a width is sent."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment(**given)) as process:
        os.close(its)
        parts = []
        try:
            while part := os.read(ours, 65536):
                parts.append(part)
        except OSError:  # the end of a terminal, on Linux
            pass
    os.close(ours)
    assert process.returncode == 0
    return b"".join(parts).decode()


def test_a_table_is_whole_in_a_pipe_and_fits_a_terminal(tmp_path: Path) -> None:
    long = tmp_path / ("a run of a long name, " * 6).strip() / "run"
    command = (*PROGRAM, "compare", str(written(long, made())), str(written(tmp_path / "other", made())))
    plain, _ = in_pipe(*command)
    assert "\x1b" not in plain
    assert any(str(long) in line and line.endswith("ONNX CPU") for line in plain.splitlines())
    coloured, _ = in_pipe(*command, FORCE_COLOR="1")
    assert "\x1b[" in coloured
    assert max(map(len, in_pipe(*command, COLUMNS="60")[0].splitlines())) <= 60
    assert "\x1b[" in in_terminal(*command, columns=100)
    dumb = in_terminal(*command, TERM="dumb")
    assert "\x1b" not in dumb
    assert max(map(len, dumb.splitlines())) <= 80


def test_bars_and_colours_are_a_terminals() -> None:
    command = (sys.executable, "-c", BAR)
    shown = in_terminal(*command)
    assert "reading" in shown
    assert "3/3" in shown  # tqdm's
    assert "\x1b[31m" in shown
    assert "\x1b[31m" not in in_terminal(*command, NO_COLOR="1")
    for given in ({}, {"FORCE_COLOR": "1"}):
        out, err = in_pipe(*command, **given)
        assert (out, len(err.splitlines())) == ("", 1), given
        assert ("\x1b[31m" in err) == bool(given)
        assert "\r" not in err


def completed(words: str) -> set[str]:
    """What is offered for the last of the words, which may be empty."""
    offer(cli)
    *before, last = words.split(" ")
    found = ShellComplete(cli, {}, "compress", COMPLETION).get_completions(before, last)
    return {f"<{item.type}>" if item.type != "plain" else item.value for item in found}


@pytest.mark.parametrize(
    ("words", "offered", "withheld"),
    [
        ("com", {"compare", "compare-targets", "completion"}, {"run"}),
        ("run --dr", {"--dry-run"}, {"--data"}),
        ("run --teacher cait_s2", {"cait_s24_224", "cait_s24_384"}, {"deit_tiny_patch16_224"}),
        ("run --teacher ca", {"<file>"}, {"cait_s24_224"}),  # too many
        ("run --target onnx,tensorrt-", {"onnx,tensorrt-rtx"}, {"onnx,tensorrt"}),
        ("run --set distill.e", {"distill.epochs=", "distill.ema_decay="}, {"distill.lr="}),
        ("run --set data.augment.cr", {"data.augment.crop_scale="}, set()),
        ("run --config em_", {"em_lift"}, {"digits"}),
        ("run --config ./mine", {"<file>"}, set()),
        ("verify runs/", {"<file>"}, set()),
        ("recipes show dig", {"digits"}, set()),
        ("target install li", {"litert"}, set()),
        ("analyze --device ", {"auto", "cpu", "cuda"}, set()),
        ("predict bundle --model o", {"onnx"}, set()),
    ],
)
def test_what_is_completed(words: str, offered: set[str], withheld: set[str]) -> None:
    found = completed(words)
    assert offered <= found
    assert not withheld & found


def test_names_of_networks_are_timms() -> None:
    from vitcompress.pipeline.listing import usable_models

    assert completed("models deit") == set(usable_models("deit*"))


def test_bash_completes_with_the_script_that_is_printed(tmp_path: Path) -> None:
    program = tmp_path / "compress"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -X importtime -m vitcompress "$@" 2>>{tmp_path}/imports\n')
    program.chmod(0o755)
    script = (
        'eval "$(compress completion bash)"; COMP_WORDS=(compress run --teacher cait_s2); COMP_CWORD=3; '
        '_compress_completion compress; printf "%s\\n" "${COMPREPLY[@]}"; complete -p compress'
    )
    path = f"{tmp_path}:{os.environ['PATH']}"
    out, err = in_pipe("/bin/bash", "--norc", "-c", script, PATH=path)
    assert out.splitlines()[:2] == ["cait_s24_224", "cait_s24_384"]
    assert (out.splitlines()[-1].startswith("complete "), err) == (True, "")
    imported = {line.split("|")[-1].strip() for line in (tmp_path / "imports").read_text().splitlines()}
    assert not imported & {"torch", "timm", "yaml", "pydantic", "onnx"}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script(shell: str) -> None:
    out, _ = in_pipe(*PROGRAM, "completion", shell)
    assert f"{COMPLETION}={shell}_complete" in out
