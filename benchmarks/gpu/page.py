"""docs/gpu.md, and what `compress run --dry-run --on CARD` takes for measured, written from what `prove.py` found.

    python benchmarks/gpu/page.py gpu/prove.json [MORE.json ...]

One section a machine, in the order given. Without a machine that has a GPU the page says that there is none yet.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from vitcompress.pipeline.report.wording import card_state

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "gpu.md"
CARDS = ROOT / "pipeline" / "measured_cards.json"
HEAD = """# On a GPU

What `benchmarks/gpu/prove.py` found, machine by machine; this page is written from its results by a command:

    python benchmarks/gpu/prove.py --minutes 10 --out gpu
    python benchmarks/gpu/page.py gpu/prove.json

[gpu-timing.md](gpu-timing.md) says what the times and the energy of engines are, and how they compare with trtexec's.
"""
NONE_YET = """**No GPU has run this project yet.** What the code for GPUs does there is not known; below is the small
version of the same script on a machine without one, which shows that the probes run.
"""


def page(found: list[dict[str, Any]]) -> str:
    """The whole page.

    Args:
        found: contents of `prove.json` files.
    """
    parts = [HEAD]
    if not any(one["machine"]["card"] for one in found):
        parts.append(NONE_YET)
    return "\n".join([*parts, *(section(one) for one in found)])


def section(one: dict[str, Any]) -> str:
    """One machine."""
    machine, probes = one["machine"], one["probes"]
    card = machine["card"]
    title = f"{card['name']}, driver {card['driver_version']}, {card['memory.total']}" if card else "No GPU"
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    lines = [
        f"## {title}",
        "",
        f"{machine['processor']}, {machine['cores']} cores; Python {machine['python']}; {packages}; commit "
        f"{machine['commit']}, {machine['date']}.{' Small networks.' if one['small'] else ''}",
    ]
    for name, probe in probes.items():
        lines += ["", f"### {probe['what'][0].upper()}{probe['what'][1:]}", "", *body(name, probe)]
    return "\n".join(lines) + "\n"


def body(name: str, probe: dict[str, Any]) -> list[str]:
    """What one probe gave, with why it gave no more."""
    if "not_here" in probe:
        return [f"Not here: {probe['not_here']}."]
    rows = probe.get("found", {}).get("rows")
    lines = WHOLE[name](probe) if name in WHOLE else ROWS[name](probe["found"]) if rows else []
    if probe.get("cut_off"):
        lines += ["", f"Cut off: {probe['cut_off']}."]
    elif probe["exit_code"] != 0:
        lines += ["", f"Failed, exit code {probe['exit_code']}:", "", "```", *probe.get("said", []), "```"]
    return lines or ["Nothing was measured."]


def _tests(probe: dict[str, Any]) -> list[str]:
    return [f"{probe['summary']}." if probe.get("summary") else "No summary.", *probe.get("skipped", [])]


def _digits(probe: dict[str, Any]) -> list[str]:
    if "accuracy" not in probe:
        return [f"No report after {probe['seconds']} s."]
    lines = [
        f"Verdict {probe['verdict']}, {probe['seconds']} s in all.",
        "",
        "| model | runtime | precision | top-1 % |",
        "| --- | --- | --- | --- |",
    ]
    for row in probe["accuracy"]:
        top1 = "not measured" if row["top1"] is None else f"{row['top1']:.2f}"
        lines.append(f"| {row['model']} | {row['runtime']} | {row['precision']} | {top1} |")
    return lines


def _step(found: dict[str, Any]) -> list[str]:
    lines = [
        f"{found['student']} <- {found['teacher']}, {found['pixels']} pixels, batch {found['batch']}, on "
        f"{found['device']}. `faster`: seconds of the plain eager loop of the same precision over ours, pairs of steps "
        "in turn, median (least to most). Peak memory is of one step, with the weights of both loops.",
        "",
        "| loop | precision | ms a step | plain, ms | faster | images/s | peak | plain's peak |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["rows"]:
        lines.append(
            f"| {row['loop']} | {row['precision']} | {1e3 * row['seconds']:.1f} | {1e3 * row['plain_seconds']:.1f} | "
            f"{row['faster']:.2f} ({row['faster_from']:.2f} to {row['faster_to']:.2f}) | "
            f"{row['images_per_second']:,.0f} | {gigabytes(row['peak_bytes'])} | {gigabytes(row['plain_peak_bytes'])} |"
        )
    return lines


def gigabytes(count: int | None) -> str:
    """Bytes in GB."""
    return "not measured" if count is None else f"{count / 1e9:.2f} GB"


def _loader(found: dict[str, Any]) -> list[str]:
    lines = [
        f"Photographs of 500x375 pixels, crops of {found['pixels']}, batch {found['batch']}, {found['cores']} cores; "
        f"until they are normalised on {found['device']}.",
        "",
        "| source and `data.augment` | recipe | workers | images/s |",
        "| --- | --- | --- | --- |",
    ]
    return lines + [
        f"| {row['choice']} | {row['recipe']} | {row['workers']} | {row['images_per_second']:,.0f} |"
        for row in found["rows"]
    ]


def _engines(found: dict[str, Any]) -> list[str]:
    lines = [
        f"Teacher {found['teacher']}, student {found['student']}, with the copies to and from the device; in turn.",
        "",
        "| runtime | batch | teacher, ms | student, ms | student is faster by |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in found["rows"]:
        if "not_here" in row:
            lines.append(f"| {row['runtime']} | not here: {row['not_here']} | | | |")
            continue
        lines.append(
            f"| {row['runtime']} | {row['batch']} | {row['teacher_milliseconds']:.3f} | "
            f"{row['student_milliseconds']:.3f} | {row['faster']:.2f} |"
        )
    parts = [line for row in found["rows"] for line in _parts(row)]
    if parts:
        lines += [
            "",
            "On the GPU, each by trtexec's definition of that name, medians in ms; with a CUDA graph after the slash.",
            "",
            "| runtime | network | batch | Enqueue Time | H2D Latency | GPU Compute Time | D2H Latency | Latency | "
            "J an image | card |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            *parts,
        ]
    return lines


def _parts(row: dict[str, Any]) -> list[str]:
    lines = []
    for network, times in row.get("on_gpu", {}).items():
        modes = [times["plain"], times["graph"]]
        told = [
            " / ".join(f"{mode[part]['p50_ms']:.3f}" if mode else "none" for mode in modes)
            for part in ("enqueue", "h2d", "compute", "d2h", "latency")
        ]
        energy = times["joules_reason"] if times["joules"] is None else f"{times['joules']:.4g}"
        card = "; ".join(filter(None, (card_state(times["card"], times["watts"]), times["graph_reason"])))
        cells = [row["runtime"], network, row["batch"], *told, energy, card]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def _processes(found: dict[str, Any]) -> list[str]:
    right = ", ".join(f"{row['what']} {'right' if row['right'] else 'WRONG'}" for row in found["rows"])
    return [f"{found['backend']} on {found['device']}: {right}."]


WHOLE = {"tests": _tests, "digits": _digits}
"""Of the whole probe."""
ROWS = {"step": _step, "loader": _loader, "engines": _engines, "processes": _processes}
"""Of its rows, where it left any."""


def measured_cards(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Operations a second of our step on each GPU, from the slowest to the fastest loop of its fastest precision.

    An image costs three forward passes of the student and, where the teacher is live, one of it (2 operations a MAC).
    """
    entries = []
    for one in found:
        step = one["probes"].get("step", {}).get("found", {})
        if one["small"] or not one["machine"]["card"] or not step.get("rows"):
            continue
        fastest = max(step["rows"], key=lambda row: row["images_per_second"])["precision"]
        rates: dict[str, list[float]] = {"live": [], "cached": []}
        for row in step["rows"]:
            if row["precision"] == fastest:
                cached = "cached teacher" in row["loop"]
                macs = 3 * step["macs"]["student"] + (0 if cached else step["macs"]["teacher"])
                rates["cached" if cached else "live"].append(2 * macs * row["images_per_second"])
        machine = one["machine"]
        entries.append(
            {
                "card": machine["card"]["name"],
                "what": f"{step['student']} <- {step['teacher']}, {step['pixels']} pixels, batch {step['batch']}, "
                f"{fastest}",
                "when": f"torch {machine['packages'].get('torch')}, commit {machine['commit']}, {machine['date']}",
                "operations_per_second": {kind: [min(all_), max(all_)] for kind, all_ in rates.items() if all_},
            }
        )
    return entries


def main() -> None:
    """Write both."""
    files = [Path(name) for name in sys.argv[1:]]
    if not files:
        raise SystemExit(f"usage: python {sys.argv[0]} PROVE.json [MORE.json ...]")
    found = [json.loads(file.read_text()) for file in files]
    PAGE.write_text(page(found))
    CARDS.write_text(json.dumps(measured_cards(found), indent=1) + "\n")
    print(f"wrote {PAGE} and {CARDS}")


if __name__ == "__main__":
    main()
