"""The tables of docs/evidence/peers.md, from the raw lines of `peers.py`; the text around them is written by hand.

python benchmarks/evidence/peers_page.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import intervals
import numpy as np
from marked import write_marked
from peers import RATES, RESULTS, ROOT, best_factor, equal_epochs
from strategies_table import over_seeds

from vitcompress.core.bits import unpacked

PAGE = ROOT / "docs" / "evidence" / "peers.md"
Lines = list[dict[str, Any]]


def top1(lines: Lines) -> str:
    """Mean over the seeds and Student's t interval; how many failed, if any did."""
    if failed := sum(line["top1"] is None for line in lines):
        return f"{failed} of {len(lines)} failed"
    return over_seeds([line["top1"] for line in lines]).text() if lines else "not run"


def difference(lines: Lines, reference: Lines) -> str:
    """Mean difference in points, seed by seed, with the wider of t over seeds and a bootstrap over images."""
    right = {
        name: {one["seed"]: unpacked(one["bits"], one["judged"]) for one in part if one["top1"] is not None}
        for name, part in (("it", lines), ("ours", reference))
    }
    if lines is reference or len(right["it"].keys() & right["ours"].keys()) < 2:
        return ""
    return intervals.difference({"it": 1, "ours": -1}, right).text()


def table(lines: Lines) -> list[str]:
    """The rows of one data set and teacher."""
    tried, seeds = ([line for line in lines if line["part"] == part] for part in ("val", "test"))
    if not tried or not seeds:
        return ["No training with the plan's seeds is finished yet.", ""]
    epochs = tried[0]["epochs"]
    best = {peer: best_factor(found) for peer in RATES if (found := [one for one in tried if one["peer"] == peer])}
    equal = [line for line in seeds if line["epochs"] == epochs]

    def of(peer: str, factor: float, longer: int) -> Lines:
        return [one for one in seeds if (one["peer"], one["factor"], one["epochs"]) == (peer, factor, longer)]

    ours = of("ours-lift", best.get("ours-lift", 1.0), epochs)
    rows = [
        "| tool | learning rate | seconds | top-1, equal images | less ours-lift | epochs, top-1, equal time | less "
        "ours-lift |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for peer, factor in ((name, one) for name in best for one in sorted({1.0, best[name]})):
        if not (same := of(peer, factor, epochs)):
            continue
        what = " and ".join(word for word, one in (("default", 1.0), ("best", best[peer])) if one == factor)
        longer = equal_epochs(equal, peer, factor, best["ours-lift"]) if ours else epochs
        timed = of(peer, factor, longer) if ours else []
        seconds = np.mean([line["seconds"] for line in same])
        less = [difference(part, ours) if (peer, factor) != ("ours-lift", best[peer]) else "" for part in (same, timed)]
        rows.append(
            f"| {peer} | {same[0]['lr']:.3g} ({what}) | {seconds:.0f} | {top1(same)} | {less[0]} | "
            f"{longer}: {top1(timed)} | {less[1]} |"
        )
    told = f"{epochs} epochs of {tried[0]['images'] // epochs:,} images; {seeds[0]['judged']:,} images of *test*."
    return [told, "", *rows, ""]


def page(lines: Lines, once: Lines) -> str:
    """The tables: of finished trainings, and of the short ones that show that each tool runs."""
    parts = [] if lines else ["Nothing yet: no training of the plan is finished.", ""]
    for data, teacher in dict.fromkeys((line["data"], line["teacher"]) for line in lines):
        mine = [line for line in lines if (line["data"], line["teacher"]) == (data, teacher)]
        parts += [f"### {data}, teacher {teacher[:8]}", "", *table(mine), made_by(mine), ""]
    parts += ["## That each tool runs", "", "Short trainings with a toy teacher, whose accuracy says nothing.", ""]
    parts += ["| tool | version | epochs | images seen | seconds | result |", "| --- | --- | --- | --- | --- | --- |"]
    for line in once:
        told = f"| {line['peer']} | {line['version'][:12]} | {line['epochs']} | {line['images']:,} | "
        parts.append(f"{told}{line['seconds']:.0f} | {line.get('failure', 'judged')} |")
    return "\n".join([*parts, "", made_by(once)])


def made_by(lines: Lines) -> str:
    """The machines, versions and commits behind lines."""
    found = {f"{one['machine']}, torch {one['torch']}, timm {one['timm']}, commit {one['commit']}" for one in lines}
    return f"By {'; '.join(sorted(found))}; one thread."


def read(path: Path) -> Lines:
    """The lines of a file of results; none where there is none."""
    return [json.loads(text) for text in path.read_text().splitlines()] if path.is_file() else []


if __name__ == "__main__":
    tables = page(read(RESULTS), read(RESULTS.with_stem("peers-once")))
    write_marked(PAGE, "benchmarks/evidence/peers_page.py", f"\n{tables}\n")
