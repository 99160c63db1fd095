"""Compare this tree with an earlier commit: the same runs must give bitwise the same weights, logits and reports.

    python benchmarks/equality.py                  # about 10 minutes; the runs of the earlier commit are kept
    python benchmarks/equality.py --before COMMIT

Each case is run once by this tree and twice by the earlier commit, from nothing. A report field that differs between
the two runs of the earlier commit (a time, a path, the name of the run) says nothing about equality and is counted
apart; every other field must be equal. Both trees use this environment, one thread, and the same images.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime
from trees import ROOT, package_of, python_of, tree_of

BEFORE = "0aaf1d3"
"""The last commit before the package `vitcompress`."""
QUICK = {
    "teacher.epochs": "2",
    "distill.epochs": "2",
    "teacher.warmup_epochs": "0",
    "distill.warmup_epochs": "0",
    "teacher.batch_size": "64",
    "distill.batch_size": "64",
    "analysis.images": "32",
    "workers": "0",
    "threads": "1",
    "verify.threads": "1",
    "verify.latency_seconds": "0.2",
    "verify.memory": "false",
    "export.target": "onnx",
    "export.precision": "fp32",
    "gates.max_accuracy_drop": "null",
    "gates.min_speedup": "null",
    "gates.above_chance": "false",
}
CASES: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "lift": ("cait_s24", "deit_tiny", "lift", {"export.precision": "fp32,fp16,int8"}),
    "lift, gradients": ("cait_s24", "deit_tiny", "lift", {"distill.balance": "gradients", "analysis.images": "0"}),
    "widelast": ("deit_small", "deit_tiny", "widelast", {}),
    "plain": ("deit_small", "deit_tiny", "plain", {"control.kind": "labels"}),
    "swin": ("swin_small", "swin_tiny", "plain", {}),
}
"""Teacher, student, strategy, settings beside ``QUICK``."""
MEANT = {
    r"timings\..*": "seconds, which may round to the same number twice",
    r"environment\.compress": "the earlier package has another name, and is not installed in this environment",
    r"analysis\.figures\..*-teacher": "the teacher's own figures are drawn once, in analysis/teacher",
    r"config\.distill\.cache\.(tap_error|chunk_mb)": "settings that are gone",
    r"config\.(check\.(batch|confidence)|control\.match|student\.inherit|verify\.bootstrap)": "settings that are gone",
    r"config\.export\.rewrites.*": "one switch instead of seven",
    r"config\.data\.check": "decided by the number of images alone; the embedded digits are no files in any case",
    r"config\.(teacher|distill)\.precision_reason": "the rule is another one, what it decides here is the same",
    r"training\.control\.(match|epochs_why)": "the control trains for as many epochs as the student",
    r"training\.distill\.snapshots\..*\.path|history\..*\.settings": "digests of settings, of which some are gone",
    r"artifacts\..*\.(file\.(bytes|sha256)|megabytes)|.*\.bytes(\..*)?": "graphs with the same logits, fewer names",
    r"artifacts\.teacher\.(nodes|operators\..*)": "two nodes fewer where CaiT's tokens are laid out",
    r"artifacts\..*\.not_rewritten.*": "rewrites for which a network has no place are not told",
    r"analysis\.advice\.recommendations.*": "that the images are too few is told once, not for each recommendation",
    r"analysis\.figures\.(beside|ways-student-after)": "figures that are gone",
    r"findings\..*": "far-below-teacher is gone: the headline has it",
    r"notes\..*": "the note on reduced networks is shorter",
    r"throughput\..*\.samples": "rows without a time count their samples too",
    r"schema_version": "4",
    r"config\.export\.engine_precision.*": "engines have precisions of their own, fp16 by default",
    r"config\.(verify\.teacher_reference|gates\.(min_speedup_deployed|max_joules))": "settings that are new",
    r"config\.((teacher|distill)\.log_every|.*augment\.(backend|normalize_on)|data\.cache|export\.slim)": "the same",
    r"history\..*\.skipped_steps": "steps that were not taken are counted",
    r"latency\..*\.(card|gpu|gpu_method|gpu_p\d+_ms)": "what a GPU did is a record of its own",
    r"(held_out|logits)\..*|machines.*|artifacts\.bundle\.files\..*": "what a bundle is judged with on another machine",
    r"headline\.(speedup_against|speedup_deployed\..*|deployed_teacher)": "which teacher, and today's",
    r"(models|graphs|latency)\..*\.speedup_(against|reason|deployed).*": "which teacher, and today's",
    r"teacher_references.*|artifacts\.teacher_(reduced|engines).*": "the teacher's graphs and engines to compare with",
}
"""Fields that differ on purpose since ``BEFORE``, as the CHANGELOG says, and why."""


@dataclass
class Found:
    """What a run left, as comparable values."""

    weights: dict[str, str] = field(default_factory=dict)
    """SHA-256 by file."""
    logits: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the logits (float32, images x classes) by graph, and of the answers of ``verify``."""
    report: dict[str, Any] = field(default_factory=dict)
    """Leaves of report.json by path."""


def run(tree: Path, case: str, output: Path) -> None:
    """Run a case of ``CASES`` with the code of ``tree``, from nothing, into ``output``."""
    shutil.rmtree(output, ignore_errors=True)
    teacher, student, strategy, more = CASES[case]
    sets = [word for key, value in (QUICK | more).items() for word in ("--set", f"{key}={value}")]
    words = ("run", "--teacher", teacher, "--student", student, "--strategy", strategy, *sets, "--output", output)
    done = python_of(tree, "-m", package_of(tree), *words, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    if done.returncode:
        raise SystemExit(f"{case} with {tree}: exit code {done.returncode}: {done.stderr[-1500:]}")


def found_in(folder: Path) -> Found:
    """Read the run in ``folder``."""
    found = Found()
    for path in sorted(path for path in folder.rglob("*.safetensors") if path.stem != "logits"):
        # The name of a folder of snapshots is a digest of the training's settings.
        name = re.sub(r"snapshots/[0-9a-f]+/", "snapshots/", path.relative_to(folder).as_posix())
        found.weights[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted((folder / "export").glob("*.onnx")):
        found.logits[path.name] = hashlib.sha256(logits_of(path).tobytes()).hexdigest()
    with gzip.open(folder / "verify" / "answers.csv.gz", "rt") as file:
        found.logits["answers of verify"] = hashlib.sha256(json.dumps(list(csv.reader(file))).encode()).hexdigest()
    found.report = dict(leaves(json.loads((folder / "report" / "report.json").read_text())))
    return found


def logits_of(graph: Path, images: int = 64) -> np.ndarray[Any, Any]:
    """Run ``graph`` on seeded noise in one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    shape = (images, *entry.shape[1:])
    values = np.random.default_rng(0).standard_normal(shape, np.float32)
    kind = np.float16 if "float16" in entry.type else np.float32
    logits: np.ndarray[Any, Any] = np.asarray(session.run(None, {entry.name: values.astype(kind)})[0], np.float32)
    return logits


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of a JSON value with its path."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        yield f"{path}.#", len(value)
        for index, each in enumerate(value):
            yield from leaves(each, f"{path}.{index}")
    else:
        yield path, value


def place_of(path: str) -> str:
    """A leaf's path without positions in lists: what one run varies, it varies in every row of a table."""
    return re.sub(r"\.\d+(?=\.|$)", ".*", path)


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Name what is not equal in both, or in one alone."""
    return sorted(key for key in one.keys() | other.keys() if one.get(key, "absent") != other.get(key, "absent"))


@click.command(help=__doc__)
@click.option("--before", default=BEFORE, show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/equality"), show_default=True)
@click.option("--case", "cases", type=click.Choice(list(CASES)), multiple=True)
@click.option("--keep", is_flag=True, help="Compare the runs of this tree that are there, instead of new ones.")
def main(before: str, work: Path, cases: tuple[str, ...], keep: bool) -> None:
    """Print a row for each case; end with 1 if anything differs that may not."""
    work = work.resolve()
    tree = tree_of(before, work / f"tree-{before}")
    found: dict[str, tuple[Found, Found, Found]] = {}
    for case in cases or CASES:
        places = [work / f"{before}-{number}" / case.replace(", ", "-") for number in (1, 2)]
        for place in places:
            if not (place / "report" / "report.json").is_file():
                run(tree, case, place)
        now = work / "now" / case.replace(", ", "-")
        if not (keep and (now / "report" / "report.json").is_file()):
            run(ROOT, case, now)
        found[case] = (found_in(places[0]), found_in(places[1]), found_in(now))
    varies = {place_of(path) for one, two, _ in found.values() for path in differing(one.report, two.report)}
    wrong: list[str] = []
    click.echo(f"| case | weight files equal | logits equal | report fields equal | meant | of {before} itself vary |")
    click.echo("| --- | --- | --- | --- | --- | --- |")
    for case, (one, two, now) in found.items():
        if differing(one.weights, two.weights) or differing(one.logits, two.logits):
            raise SystemExit(f"{case}: two runs of {before} differ from each other, so nothing can be compared")
        weights, logits = differing(one.weights, now.weights), differing(one.logits, now.logits)
        steady = {path for path in one.report.keys() | now.report.keys() if place_of(path) not in varies}
        changed = [path for path in differing(one.report, now.report) if path in steady]
        meant = [path for path in changed if any(re.fullmatch(pattern, path) for pattern in MEANT)]
        fields = [path for path in changed if path not in meant]
        cells = [
            f"{len(all_of) - len(of)} of {len(all_of)}"
            for of, all_of in (
                (weights, one.weights.keys() | now.weights.keys()),
                (logits, one.logits.keys() | now.logits.keys()),
                (fields, steady - set(meant)),
            )
        ]
        moving = len(one.report.keys() | now.report.keys()) - len(steady)
        click.echo(f"| {case} | {' | '.join(cells)} | {len(meant)} | {moving} |")
        for name in (*weights, *logits):
            wrong.append(f"{case}: {name}")
        for path in fields:
            wrong.append(f"{case}: {path}: {one.report.get(path, 'absent')!r} -> {now.report.get(path, 'absent')!r}")
    for pattern, why in MEANT.items():
        click.echo(f"meant: {pattern}: {why}")
    for line in wrong[:60]:
        click.echo(f"differs: {line}")
    raise SystemExit(f"{len(wrong)} differences" if wrong else 0)


if __name__ == "__main__":
    main()
