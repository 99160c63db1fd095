"""RUN/log.txt: what a session said, shown or not, and how it ended."""

from __future__ import annotations

import io
import logging
import re
import warnings
from pathlib import Path

import pytest
from rich.console import Console

from vitcompress.core.context import Context
from vitcompress.core.errors import DataError, RunInterrupted, UsageError
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.runner import Runner
from vitcompress.pipeline.session import session


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    run = RunDirectory.claim(tmp_path / "run", {"seed": 7})
    return Runner(run, Console(file=io.StringIO(), width=500))


def lines(runner: Runner) -> list[str]:
    """The log without its times, each of which is checked."""
    found = (runner.run.root / "log.txt").read_text().splitlines()
    times = [re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00( .*)?", line) for line in found]
    return [(one.group(1) or "")[1:] for one in times if one] if all(times) else found


def test_it_has_what_the_terminal_left_out_and_is_written_at_once(runner: Runner) -> None:
    with session(runner, "compress run --teacher a"):
        context = Context(run=runner.run, seed=0, console=runner.console, verbose=False, log=runner.log)
        context.say("a detail")
        runner.line("data", "done \x1b[31min\x1b[0m 1\x07 s")
        written = lines(runner)  # as a kill at this moment would leave it
    assert written[0] == "session: compress run --teacher a"
    assert "seed: 7" in written
    assert any(line.startswith("packages: ") and "torch" in line for line in written)
    assert written[-2:] == ["  a detail", "data     done in 1  s"]
    assert "detail" not in runner.console.file.getvalue()  # type: ignore[attr-defined]


def test_warnings_and_unhandled_messages_are_shown_as_ever_and_logged(
    runner: Runner, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own handle everything
    shown: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *rest: shown.append(str(message)))
    with session(runner, "c"), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old interface", UserWarning, stacklevel=1)
        logging.getLogger("somebody").warning("slow disk")
    logging.getLogger("somebody").warning("after it")
    found = "\n".join(lines(runner))
    assert "UserWarning: old interface" in found
    assert "warning: slow disk" in found
    assert "after it" not in found
    assert shown == ["old interface"]
    assert capsys.readouterr().err == "slow disk\nafter it\n"


def test_each_session_is_appended_and_an_error_ends_its_own(runner: Runner) -> None:
    with pytest.raises(DataError), session(runner, "first"):
        raise DataError("folder 'a' holds no image; give another.")
    with pytest.raises(RunInterrupted), session(runner, "second"):
        raise RunInterrupted("stopped after 1 of 2 epochs.")
    with session(runner, "third"), pytest.raises(UsageError), session(Runner(runner.run, runner.console), "beside"):
        pass  # another process's: it holds no lock, and writes nothing
    found = lines(runner)
    assert [line for line in found if line.startswith("session: ")] == [
        f"session: {n}" for n in ("first", "second", "third")
    ]
    error = found.index("error: folder 'a' holds no image; give another.")
    assert found[error + 1] == "Traceback (most recent call last):"
    assert "stopped: stopped after 1 of 2 epochs." in found
    assert found[-1] == "session ended"
    runner.line("mirror", "after it")  # into no file that has the descriptor's number by now
    assert lines(runner) == found


def test_passwords_in_urls_are_not_logged_or_shown(runner: Runner) -> None:
    with session(runner, "compress run --data https://me:s3cret@host/list.csv"):
        runner.line("track", "mlflow: https://me:s3cret@host")
    assert "mlflow: https://***@host" in "\n".join(lines(runner))
    assert "s3cret" not in (runner.run.root / "log.txt").read_text() + runner.console.file.getvalue()  # type: ignore[attr-defined]
