"""`--track` on a run that is finished: what is there is sent, and nothing is done again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import yaml
from command_line import in_process
from running import Finished


def digests(root: Path) -> dict[str, str]:
    """Of all that stages and report wrote."""
    files = [path for folder in ("records", "report", "student", "bundle") for path in (root / folder).rglob("*")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}


def test_a_finished_run_is_sent_and_not_done_again(finished: Finished, run_copy: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    before = digests(run_copy)
    sessions = (run_copy / "log.txt").read_text().count(" session: ")
    result = in_process(*finished.arguments, "--output", run_copy, "--track", "tensorboard", "--set", "workers=0")
    assert result.code == 0, result.err
    assert "done in" not in result.err
    assert digests(run_copy) == before
    assert yaml.safe_load((run_copy / "config.yaml").read_text())["tracking"]["trackers"] == ["tensorboard"]
    (folder,) = (run_copy / "tensorboard").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [one.value for one in events.Scalars("teacher/epoch")] == [1, 2]
    assert [one.value for one in events.Scalars("distill/epoch")] == [1, 2]
    assert events.Scalars("result/exit_code")[0].value == 0
    assert "report/text_summary" in events.Tags()["tensors"]
    log = (run_copy / "log.txt").read_text()
    assert log.count(" session: ") == sessions + 1
    assert "fitting the teacher to 10 classes" in log  # which the terminal left out
    assert "fitting the teacher" not in finished.result.err
    assert str(result.out.splitlines()[0]) in log  # the table
