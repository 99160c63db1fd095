"""Who is taken for lost, and who is not; what a real run then says is in tests/e2e/test_processes.py."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from vitcompress.core.errors import ProcessLost
from vitcompress.stages.training.pulse import Pulse

ROOT = Path(__file__).parents[3]


def watching() -> Pulse:
    """Rank 1 of three; it saw the others at second 0, and its patience is 10."""
    pulse = Pulse(rank=1, processes=3, patience=10)
    for rank in (0, 2):
        pulse.hear(rank, "1 step 5 of student", now=0)
    return pulse


def test_a_count_that_stands_still_is_silence_and_one_that_moves_is_none() -> None:
    pulse = watching()
    for now in range(1, 12):
        pulse.hear(0, f"{1 + now} step {5 + now} of student", now=now)
        pulse.hear(2, "1 step 5 of student", now=now)
    assert pulse.silent(9.9) == []
    assert pulse.silent(11) == [2]


def test_a_store_that_does_not_answer_is_its_process_gone() -> None:
    assert [watching().silent(now) for now in (9.9, 10.1)] == [[], [0]]


def test_a_process_that_was_stopped_itself_blames_nobody() -> None:
    pulse = watching()
    pulse.excuse(3600)
    assert pulse.silent(3609) == []
    assert pulse.silent(3611) == [0]


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
