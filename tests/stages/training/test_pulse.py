"""Who is taken for lost, and who is not."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from vitcompress.core.errors import ProcessLost
from vitcompress.stages.training.pulse import Others

ROOT = Path(__file__).parents[3]


def watched() -> Others:
    """Three processes, each seen at second 0; patience of 10."""
    others = Others(patience=10, answered=0)
    for rank in (0, 2):
        others.note(rank, 1, "step 5 of student", now=0)
    return others


def test_a_count_that_stands_still_is_silence_and_one_that_moves_is_none() -> None:
    others = watched()
    for now in range(1, 12):
        others.note(0, 1 + now, f"step {5 + now} of student", now=now)
        others.note(2, 1, "step 5 of student", now=now)
    assert others.lost(9.9) is None
    told = others.lost(11)
    assert told is not None
    assert "rank 2 (last seen at step 5 of student)" in told
    assert "rank 0" not in told
    assert list(others.silent(11)) == [2]


def test_a_store_that_does_not_answer_is_its_process_gone() -> None:
    told = watched().lost(10.1)
    assert told is not None
    assert told.startswith("rank 0 (last seen at step 5 of student)")
    assert "rank 2" not in told


def test_a_process_that_was_stopped_itself_blames_nobody() -> None:
    others = watched()
    others.excuse(3600)
    assert others.lost(3609) is None
    assert others.lost(3611) is not None


def test_processes_that_never_meet_end_with_a_sentence() -> None:
    program = textwrap.dedent(
        """
        import time
        from vitcompress.stages.training import pulse

        pulse._SHORTEST_MEETING = 0.2
        with pulse.meeting(0.1):
            pass
        time.sleep(0.5)
        print("met", flush=True)
        with pulse.meeting(0.1):
            time.sleep(60)
        """
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WORLD_SIZE": "2", "RANK": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (ProcessLost.exit_code, "met\n")
    assert done.stderr.startswith("rank 1: error: the 2 processes did not find each other within 0.00")
