"""Does `compress check` tell a harmed student from a sound one, from end to end?

    python benchmarks/regressions.py                      # makes a run of the embedded digits, then harms copies of it
    python benchmarks/regressions.py --run RUN            # of a run that there is

Each try goes the way a user's would, in processes of their own: the harmed student is exported, everything is measured
again, and `compress check` compares with the baseline. The unharmed run is measured again and compared ten times.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harm import add_block, damage_last_block

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "regressions.json"
RUN = ("run", "--teacher", "cait_s24", "--student", "deit_tiny", "--target", "onnx", "--precision", "fp32")
QUICK = ("teacher.epochs=1", "distill.epochs=1", "teacher.warmup_epochs=0", "distill.warmup_epochs=0")
UNJUDGED = ("gates.max_accuracy_drop=null", "gates.min_speedup=null", "gates.above_chance=false", "analysis.images=0")


@dataclass(frozen=True)
class Try:
    """One measurement, compared with the baseline."""

    case: str
    exit_code: int
    word: str
    accuracy_loss: float | None
    """Points."""
    slowdown: tuple[float | None, float | None, float | None]
    """Percent, with its interval."""
    causes: tuple[str, ...]
    """The lines that name a failure."""


def compress(*arguments: str | Path, allowed: Sequence[int] = (0,)) -> subprocess.CompletedProcess[str]:
    """`compress ARGUMENTS...` in a process of its own."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "vitcompress", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    if done.returncode not in allowed:
        raise SystemExit(f"compress {' '.join(map(str, arguments))} ended with {done.returncode}: {done.stderr[-800:]}")
    return done


def sets(*settings: str) -> list[str]:
    """Settings as arguments."""
    return [word for setting in settings for word in ("--set", setting)]


def compared(case: str, run: Path, baseline: Path) -> Try:
    """What `compress check` says of a run."""
    done = compress("check", run, "--baseline", baseline, allowed=(0, 1))
    found = json.loads((run / "report" / "check.json").read_text())
    rows = {row["gate"]: row for row in found["rows"]}
    slow = rows["max_slowdown"]
    causes = tuple(line for line in done.stdout.splitlines() if line.startswith("FAIL onnx"))
    return Try(
        case,
        done.returncode,
        found["verdict"]["word"],
        rows["max_accuracy_loss"]["value"],
        (slow["value"], slow["low"], slow["high"]),
        causes,
    )


def harmed(case: str, run: Path, folder: Path, baseline: Path, harm: Callable[[Path], None]) -> Try:
    """A copy of the run, harmed, exported, measured and compared."""
    copy = Path(shutil.copytree(run, folder / case.replace(" ", "-"), dirs_exist_ok=True))
    harm(copy)
    compress("export", copy, "--target", "onnx", "--precision", "fp32")
    return compared(case, copy, baseline)


def tries(run: Path, folder: Path, seconds: float, times: int) -> list[Try]:
    """Make the baseline of a run, then compare the unharmed run ``times`` times, and each harmed one once."""
    baseline = folder / "baseline.json"
    compress("verify", run, *sets(f"verify.latency_seconds={seconds}"))
    compress("check", run, "--baseline", baseline, "--update")
    found = []
    for index in range(times):
        compress("verify", run)
        found.append(compared("unharmed", run, baseline))
        print(f"unharmed {index + 1} of {times}: {found[-1].word}", file=sys.stderr, flush=True)
    found.append(harmed("last block damaged", run, folder, baseline, lambda copy: damage_last_block(copy, std=10.0)))
    found.append(harmed("extra block", run, folder, baseline, add_block))
    return found


def table(found: Sequence[Try]) -> str:
    """A Markdown table of all tries; equal cases are one row."""
    lines = ["| student | tries | exit code | verdict | slowdown, % | cause named |", "|---|---|---|---|---|---|"]
    for case in dict.fromkeys(one.case for one in found):
        own = [one for one in found if one.case == case]
        codes = ", ".join(f"{sum(one.exit_code == code for one in own)} x {code}" for code in (0, 1))
        words = ", ".join(
            f"{sum(one.word == word for one in own)} x {word}" for word in dict.fromkeys(one.word for one in own)
        )
        measured = [one.slowdown[0] for one in own if one.slowdown[0] is not None]
        ends = f"{min(measured):.1f} to {max(measured):.1f}" if len(measured) > 1 else f"{measured[0]:.1f}"
        causes = "; ".join(dict.fromkeys(cause for one in own for cause in one.causes)) or "-"
        lines.append(f"| {case} | {len(own)} | {codes} | {words} | {ends} | {causes} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and store the tries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished run, which is copied; default: one of the digits is made")
    parser.add_argument("--seconds", type=float, default=20.0, help="verify.latency_seconds of each measurement")
    parser.add_argument("--times", type=int, default=10, help="how often the unharmed run is measured and compared")
    parser.add_argument("--quick", action="store_true", help="hardly any training: shows that this program works")
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON file for the tries")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run = folder / "run"
        if given.run:
            shutil.copytree(given.run, run)
        else:
            compress(*RUN, "--output", run, *sets(*UNJUDGED, *(QUICK if given.quick else ())), allowed=(0, 1))
        found = tries(run, folder, given.seconds, given.times)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
