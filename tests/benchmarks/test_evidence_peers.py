"""benchmarks/evidence/peers.py and its page: what is chosen, what is compared, and that a failure is told once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evidence.peers_page import difference, table
from peers import Job, Study, best_factor, carry_out, equal_epochs

from vitcompress.core.bits import packed


def line(peer: str, right: int, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """A finished training whose student is right about the first ``right`` of 1,000 images."""
    bits = packed(np.arange(1000) < right)
    own = {"peer": peer, "seed": seed, "factor": 1.0, "epochs": 10, "part": "test", "lr": 0.1, "images": 1000}
    return {**own, "seconds": 100.0, "top1": right / 10, "judged": 1000, "bits": bits, **changes}


def test_the_wider_interval_is_told() -> None:
    alike = difference([line("a", 520, seed) for seed in (0, 1)], [line("b", 500, seed) for seed in (0, 1)])
    assert alike.startswith("+2.00 [+1.")  # seeds agree: only the images are uncertain
    apart = difference([line("a", 510, 0), line("a", 530, 1)], [line("b", 500, seed) for seed in (0, 1)])
    assert apart == "+2.00 [-10.71, +14.71]"  # t of one degree of freedom, 12.71 x sqrt(2) / sqrt(2)


def test_rates_are_chosen_on_choose_and_time_is_that_of_ours() -> None:
    tried = [line("lightly", right, part="val", factor=one) for one, right in ((1.0, 400), (0.5, 450), (2.0, 450))]
    tried += [line("ours-lift", 500, part="val")]
    assert best_factor(tried[:3]) == 0.5
    assert best_factor([line("lightly", 0, top1=None, factor=1.0), line("lightly", 1, factor=2.0)]) == 2.0
    done = [line("ours-lift", 500), line("lightly", 400, seconds=50.0), line("lightly", 410, factor=0.5, seconds=25.0)]
    assert (equal_epochs(done, "lightly", 1.0, 1.0), equal_epochs(done, "lightly", 0.5, 1.0)) == (20, 40)
    done.append(line("lightly", 600, factor=0.5, epochs=40))
    rows = "\n".join(table([*tried, *done, *({**one, "seed": 1} for one in done)]))
    assert "0.1 (best) | 25 | 41.00 | -9.00 [" in rows
    assert "| 40: 60.00 | +10.00 [" in rows
    assert "0.1 (default) | 50 | 40.00" in rows
    assert "| 20: not run |" in rows


def test_a_tool_that_fails_leaves_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "model.safetensors").touch()
    (tmp_path / "data" / "train" / "a").mkdir(parents=True)
    study = Study(tmp_path / "data", tmp_path, {}, tmp_path / "lines.jsonl")
    command = [sys.executable, "-c", "raise SystemExit('the loss is not finite')"]
    monkeypatch.setattr("peers.command_of", lambda *_: (command, "1.0"))
    for _ in range(2):
        found = carry_out(study, Job("timm-logit", 0, 1.0, 1))
        assert found["top1"] is None
        assert "the loss is not finite" in found["failure"]
    assert len((tmp_path / "lines.jsonl").read_text().splitlines()) == 1
