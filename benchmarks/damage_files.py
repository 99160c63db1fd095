"""Every file of a finished run, damaged, and what the commands make of it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from damage_runs import Base, arguments, same_answers
from damage_trial import forked

COMMANDS = ("doctor", "check", "predict", "compare", "run")


def flip(path: Path) -> None:
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 4
        path.write_bytes(content)


def cut(path: Path) -> None:
    """The first half is left."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    """Nothing is left."""
    os.truncate(path, 0)


DAMAGES: dict[str, Callable[[Path], None]] = {"flipped": flip, "cut": cut, "emptied": empty}


def tried(base: Base, trial: Path, name: str, damage: str) -> dict[str, Any]:
    """A copy of the run with one file damaged, and the five commands on it, `run` last, for it mends.

    Args:
        base: the finished run.
        trial: a folder, made anew.
        name: of the file, in the run.
        damage: of ``DAMAGES``.
    """
    shutil.rmtree(trial, ignore_errors=True)
    trial.mkdir(parents=True)
    root = Path(shutil.copytree(base.root, trial / "run"))
    file = root / name
    before = file.read_bytes()
    DAMAGES[damage](file)
    if file.read_bytes() == before:
        return {"outcomes": {command: {"outcome": "nothing to do", "said": "", "seconds": 0.0} for command in COMMANDS}}
    outcomes = {}
    for command in COMMANDS[:-1]:
        ended = forked(base.words(command, root), trial)
        outcomes[command] = ended.judged("not used")
        if outcomes[command]["outcome"] == "not used" and words_of(ended.out) != words_of(base.said[command]):
            outcomes[command]["outcome"] = "used in silence"
            outcomes[command]["said"] = differing(words_of(base.said[command]), words_of(ended.out))
    ended = forked(arguments(root), trial)
    outcomes["run"] = ended.judged("made anew")
    if ended.code == 0 and not same_answers(base, root, trial):
        outcomes["run"] |= {"outcome": "used in silence", "said": "the bundle's answers differ"}
    return {"outcomes": outcomes}


def words_of(out: str) -> list[str]:
    """What a command said, less what differs between two runs that are alike: paths, free disk space, and padding."""
    return re.sub(r"\S*/(trial|base)/\S*|\S+ [KMGT]iB free|[─-╿]+", " ", out).split()


def differing(before: list[str], now: list[str]) -> str:
    """The first words that are not the same."""
    for index, (a, b) in enumerate(zip(before, now, strict=False)):
        if a != b:
            return f"'{' '.join(before[index : index + 6])}' became '{' '.join(now[index : index + 6])}'"
    return f"{len(before)} words became {len(now)}"
