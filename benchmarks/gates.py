"""How often the verdict of `compress check` is wrong: false failures of what did not change, and losses it misses.

    python benchmarks/gates.py latency             # 45 minutes; an interrupted run goes on where it was
    python benchmarks/gates.py accuracy
    python benchmarks/gates.py table               # docs/error-rates.md, from benchmarks/results

What follows the first word is that part's own: ``python benchmarks/gates.py latency --help``.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]


def main() -> None:
    """Hand over to the part that is asked for."""
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    sys.argv[:2] = [f"{sys.argv[0]} {part}"]
    if part == "latency":
        import gates_latency

        gates_latency.main()
    elif part == "accuracy":
        import gates_accuracy

        gates_accuracy.main()
    elif part == "table":
        import gates_latency

        sys.argv.append("--table")
        gates_latency.main()
    else:
        raise SystemExit(f"'{part}' is no part; give latency, accuracy or table.\n\n{__doc__}")


if __name__ == "__main__":
    main()
