"""The campaign's own eyes: what it calls noticed, made anew, used in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
from damage import fine
from damage_files import DAMAGES, words_of
from damage_trial import Ended


def ended(code: int, err: str = "", out: str = "") -> Ended:
    return Ended(code, out, err, 1.0)


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (ended(0), "not used"),
        (ended(2, "error: the file is damaged; export it again."), "noticed"),
        (ended(1, "", "FAIL"), "noticed"),
        (ended(2), "died (2)"),
        (ended(-11, "error: x"), "died (-11)"),
        (ended(139, "x"), "died (139)"),
        (ended(2, "Traceback (most recent call last):\n  File x\nValueError: y"), "traceback"),
        (ended(2, "error: internal KeyError: 'a'. Run again with --debug"), "traceback"),
        (ended(0, "Traceback (most recent call last):\nin a thread"), "traceback"),
    ],
)
def test_ends_are_judged(end: Ended, outcome: str) -> None:
    found = end.judged("not used")
    assert found["outcome"] == outcome
    assert fine({"outcomes": {"run": found}}) == (outcome in ("not used", "noticed"))


def test_each_damage_changes_the_file(tmp_path: Path) -> None:
    for name, damage in DAMAGES.items():
        file = tmp_path / name
        file.write_bytes(bytes(range(100)))
        damage(file)
        assert file.read_bytes() != bytes(range(100)), name


def test_output_is_compared_without_paths_free_space_and_lines() -> None:
    assert words_of("ok disk: 73 GiB free here") == words_of("ok disk: 4.5 GiB free here")
    one = words_of("report  /tmp/x/base/report.html ┃ top-1 97.5")
    assert one == words_of("report /elsewhere/trial/report.html     top-1 97.5")
    assert one != words_of("report /elsewhere/trial/report.html     top-1 97.4")
