"""SIGTERM and SIGINT to the whole process group, loader processes included, at moments of every kind."""

from __future__ import annotations

import json
from pathlib import Path

import moments
import pytest
from forked import forked
from running import NAMES, TINY, sets

SETTINGS = (*TINY, "teacher.epochs=1", "distill.epochs=1", "workers=2", "distill.views=1")
AFTERWARDS = ("; the same command goes on from there.",)
"""Where the run has saved and ended before the second signal comes."""
AT_ONCE = "stopped; the same command goes on from what is saved."


def run(root: Path, point: str, signals: str) -> tuple[int, str]:
    """The exit code and what was printed on stderr."""
    words = ["run", *NAMES, *sets(*SETTINGS), "--output", str(root)]
    return forked(moments.start, [point, signals, *words])


def status(root: Path, stage: str) -> str:
    return str(json.loads((root / "state.json").read_text())["stages"][stage]["status"])


Moment = tuple[str, str, str, str]
"""Point, signals, the stage that is interrupted, and what is said."""
TEACHER: Moment = ("teacher:3", "TERM", "teacher", "saved at step 3; the same command goes on from there.")
TWICE: Moment = ("teacher:3", "TERM,later,TERM", "teacher", AT_ONCE)
CACHING: Moment = (
    "caching", "TERM,TERM", "distill", "files of the teacher cache to compute; the same command goes on from",
)  # fmt: skip
STUDENT: Moment = ("student:3", "INT", "distill", "saved at step 3; the same command goes on from there.")
INT_TWICE: Moment = ("student:3", "INT,later,INT", "distill", AT_ONCE)
FOLD: Moment = ("fold", "TERM", "fold", AT_ONCE)
VERIFYING: Moment = ("verifying:2", "TERM", "verify", AT_ONCE)


@pytest.mark.parametrize(
    "moments",
    [
        pytest.param((CACHING, INT_TWICE, FOLD), id="one of each kind"),
        pytest.param((TEACHER, TWICE, CACHING, STUDENT, INT_TWICE, FOLD, VERIFYING), id="all", marks=pytest.mark.sweep),
    ],
)
def test_stopped_anywhere_it_says_one_sentence_and_goes_on(tmp_path: Path, moments: tuple[Moment, ...]) -> None:
    root = tmp_path / "r"
    for point, signals, stage, sentence in moments:
        code, err = run(root, point, signals)
        assert code == 130, f"{point} {signals}: {err}"
        told = (sentence, *AFTERWARDS) if "later" in signals else (sentence,)
        assert any(one in err.splitlines()[-1] for one in told), f"{point} {signals}: {err}"
        assert "Traceback" not in err, f"{point} {signals}: {err}"
        assert "DataLoader" not in err, f"{point} {signals}: {err}"
        assert status(root, stage) == "interrupted"
    assert all(f"{done:<8} reused" in err for done in ("data", "teacher", "student"))
    if VERIFYING in moments:
        code, err = run(root, "never", "")
        assert code == 0, err
        assert all(f"{done:<8} reused" in err for done in ("distill", "fold"))
