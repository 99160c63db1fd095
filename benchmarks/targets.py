"""What does each target give, on the same trained network, and timed against ONNX Runtime?

    python benchmarks/targets.py              # 40 minutes on 2 quiet cores; writes docs/targets.md
    python benchmarks/targets.py --install    # also makes the environments of targets that have their own

Two parts. The digits: one `compress run` of the defaults with all targets that can be made here; its report has
differences, accuracy, files, packages, cold starts and memory. DeiT-Tiny at 224 pixels with random weights, for
realistic speeds: each file is timed beside the fp32 graph in ONNX Runtime, the two opened anew in each session and
called in turn. Every result is kept in --work as it is measured, so that the same command goes on where it stopped;
delete `results.json` there to measure again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import timm
import torch
from code_version import code_version
from numpy.typing import NDArray
from real_before import compress, report_of
from real_cells import Kept
from torch import nn

from vitcompress.core.artifact_records import OnnxArtifact, Precision
from vitcompress.core.errors import CompressError
from vitcompress.core.files import reference
from vitcompress.core.machine import processor
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters import targets
from vitcompress.exporters.latency import measure_sessions, physical_cores, pinned, speedup_interval
from vitcompress.exporters.precision.compare import LIMITS
from vitcompress.exporters.precision.reduce import reduced_from_onnx
from vitcompress.exporters.targets import BuildOptions, Target
from vitcompress.pipeline.api.networks import export_module
from vitcompress.stages.export.config import DEFAULT_PRECISIONS, ExportConfig
from vitcompress.stages.export.engines import compared
from vitcompress.stages.export.graphs import HeldOut
from vitcompress.stages.judging.contestant import Contestant, batch_of
from vitcompress.stages.judging.opening import engine_contestant, onnx_contestant
from vitcompress.stages.rewrites.deploy import deployed

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "targets.md"
BATCHES = (1, 8)
SECONDS = 20.0
"""Of one measurement of DeiT-Tiny."""
OF_REPORT = ("models", "artifacts", "environment")
DIGITS = ("target", "version", "difference", "top-1 %", "file MB", "package MB", "cold ms", "memory MB")
DEIT = ("target", "build s", "file MB", "batch 1, ms", "speed", "batch 8, ms", "speed")
SPEED = "{:.2f} [{:.2f}, {:.2f}]"
AS_GIVEN = PreprocessSpec(size=224, mean=(0.0,) * 3, std=(1.0,) * 3)
FOR = {
    "onnx": "any machine; the graph that all others are built of or compared with",
    "openvino": "CPUs, built-in GPUs and NPUs of Intel; CPUs of AMD and Arm",
    "executorch": "apps on Android and iOS, and Linux boards, by XNNPACK",
    "aotinductor": "C++ programs that link libtorch already",
    "litert": "Android apps, by LiteRT (once TensorFlow Lite)",
    "web": "a page in a browser, without a server",
    "ncnn": "Arm boards and phones with little memory",
    "coreml": "apps on iPhone, iPad and Mac",
    "tensorrt": "one NVIDIA GPU",
    "tensorrt-rtx": "NVIDIA GPUs of several generations, built on any machine",
    "triton": "a server; a folder of the bundle's models, which it builds nothing of",
}
"""What each target is for, in words."""
INTRODUCTION = """\
# Targets

Where a network can be deployed, and what was measured of each on one machine. A target is asked for by name, several
with commas:

    compress run --teacher cait_s24 --student deit_tiny --target onnx,openvino,executorch

| target | for | its page |
| --- | --- | --- |
{purposes}

`compress doctor` says which can be made on a machine and how to install the rest. Each is built of the same exported
network, compared with torch on real images, and judged on the same held-out images as the others: gates
(`gates.artifacts=[onnx,openvino-fp32]`), `compress check`, the bundle and `compress predict` treat all alike.

## How to choose

1. On a CPU with Python or C++ begin with ONNX Runtime: it needs nothing but the bundle. Take another one where it is
   faster on *your* machine: `compress verify BUNDLE` measures there, and the order changes with the processor.
2. In an app or a page the platform decides: Core ML on Apple's systems, LiteRT or ExecuTorch on Android.
3. int8 is for processors with instructions for it (VNNI, AMX, dot products of Arm); without them it is often slower
   than fp32. The bundle leaves out int8 that was not faster here, or loses accuracy.
4. `compress compare-targets RUN` prints the choice for a budget of milliseconds and megabytes.
"""
MEASURED = """
## Measured

{machine}; commit {commit}. Command, from a fresh clone:

    python benchmarks/targets.py

**The embedded digits** (`{command}`; the teacher in torch: {teacher} %). Difference: the largest of a logit from torch
on real images. Cold: import, load and first image of a fresh process. Package: the runtime as installed and the file.

{digits}

**DeiT-Tiny, 224 pixels, 1000 classes, random weights**, fp32 in ONNX Runtime beside it. Speed: that one's time over
the target's, both opened anew in each session and called in turn; above 1 the target is faster. Brackets are 95 %
intervals over sessions. Against itself, opened twice, ONNX Runtime has {itself}.

{deit}
"""


@dataclass(frozen=True)
class Deit:
    """DeiT-Tiny with random weights, in the precisions that targets build."""

    work: Path
    kept: Kept

    @cached_property
    def network(self) -> nn.Module:
        """Always of the same weights."""
        torch.manual_seed(0)
        return timm.create_model("deit_tiny_patch16_224").eval()

    @cached_property
    def images(self) -> NDArray[np.float32]:
        """Sixteen of noise, as the network takes them."""
        return np.random.default_rng(0).normal(size=(16, 3, 224, 224)).astype(np.float32)

    def graph(self, precision: Precision) -> OnnxArtifact:
        """The graph in a precision, made once; a CompressError is raised where it cannot be made."""
        return OnnxArtifact.model_validate_json(self.kept.once(f"graph {precision}", partial(self._made, precision)))

    def _made(self, precision: Precision) -> str:
        if precision == "fp32":
            (fp32,) = export_module(self.network, self.work, torch.from_numpy(self.images), ["onnx"])
            return str(fp32.model_dump_json())
        fp32, path = self.graph("fp32"), self.work / f"student.{precision}.onnx"
        source, limits = self.work / fp32.file.path, replace(LIMITS[precision], difference=10.0, agreement=0.0)
        facts = reduced_from_onnx(source, path, precision, calibration=self.images, checked=self.images, limits=limits)
        named = {"name": path.stem, "file": reference(path, self.work), "precision": precision}
        return fp32.model_copy(update={**named, "seconds": facts.seconds, "operators": facts.audit}).model_dump_json()

    def built(self, target: Target, precision: Precision) -> dict[str, Any]:
        """What a target built, with its times at each batch size; or ``reason``."""
        try:
            graph: Any = self.graph(precision)
            (self.work / "export").mkdir(exist_ok=True)
            rewritten = partial(deployed, self.network, AS_GIVEN, "float")
            options = BuildOptions(self.work, module=lambda: rewritten().module, calibration=lambda: self.images)
            made: Any = target.build(graph, options)
            if target.name != "onnx":
                given = HeldOut(self.images, self.images, AS_GIVEN)
                made = compared(ExportConfig(), target, made, lambda: self.network, given, self.work)
            timed = {str(batch): self.timed(target, made, batch) for batch in BATCHES}
        except CompressError as error:
            return {"reason": f"refused: {error}"}
        return {"seconds": made.seconds, "bytes": made.bytes, "batches": timed}

    def timed(self, target: Target, made: Any, batch: int) -> dict[str, Any]:
        """Median milliseconds of a batch, and the speed over fp32 in ONNX Runtime with its interval."""
        threads, path = physical_cores(), self.work / made.file.path
        absent = Contestant("student", target.name, AS_GIVEN, None, getattr(made, "max_batch", None), file=path)
        beside = Contestant("student", "onnx", AS_GIVEN, None)
        with ExitStack() as stack, pinned(threads):
            fp32 = self.work / self.graph("fp32").file.path
            reference = onnx_contestant(beside, fp32, threads, "cpu", stack)
            if target.name == "onnx":
                one = onnx_contestant(absent, path, threads, "cpu", stack)
            else:
                one = engine_contestant(absent, path, threads, stack, stack)
            if not one.takes(batch):
                return {"reason": one.why_not()}
            images = batch_of(self.images, batch)
            openers = {"onnx": partial(reference.opened, images), "it": partial(one.opened, images)}
            found = measure_sessions(openers, SECONDS, reference="onnx", tight=0.01)
        speed = speedup_interval(found.medians["onnx"], found.medians["it"], 2000, seed=0)
        return {"ms": float(np.median(found.samples("it"))), "speed": speed}


def digits(work: Path, names: list[str], seconds: float) -> dict[str, Any]:
    """One run with these targets: its command, the teacher's top-1, and a row for each artifact of the student."""
    networks = ["--teacher", "cait_s24", "--student", "deit_tiny", "--strategy", "lift"]
    words = ["run", *networks, "--target", ",".join(["onnx", *names]), "--set", f"verify.latency_seconds={seconds:g}"]
    done = compress(ROOT, *words, "--output", work / "digits")
    if done.returncode not in (0, 1):
        raise SystemExit(f"compress {' '.join(words)} ended with {done.returncode}: {done.stderr[-800:]}")
    report = report_of(work / "digits")
    return {"command": f"compress {' '.join(words)}", **{name: report[name] for name in OF_REPORT}}


def table(names: tuple[str, ...], rows: Iterator[list[str]]) -> str:
    """Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (names, ["---"] * len(names), *rows))


def number(value: float | None, form: str, unit: float = 1.0) -> str:
    """A number, or a dash."""
    return "-" if value is None else format(value / unit, form)


def reason(text: str) -> str:
    """The first sentence of a reason, as a cell."""
    return " ".join(text.split()).replace("|", "/").split(". ")[0][:160].rstrip(".")


def digit_rows(found: Mapping[str, Any], absent: Mapping[str, str]) -> Iterator[list[str]]:
    """The rows of the digits, and of the targets that cannot be made here."""
    made, own = found["artifacts"], {"flavour": "onnx", "version": found["environment"]["packages"].get("onnxruntime")}
    rows = {(one["model"], one["runtime"], one["precision"]): one for one in found["models"]}
    for one in (
        *(own | each for each in (made["student"][made["deployed"]], *made["reduced"].values())),
        *made["engines"],
    ):
        row = rows[made["deployed"], one["flavour"], one["precision"]]
        package, cold, memory = ((row.get(name) or {}).get("value") for name in ("package", "cold_start", "memory"))
        difference, top1 = max(one["max_logit_difference"].values(), default=None), number(row["top1"]["value"], ".2f")
        if row["top1"]["value"] is None:
            top1 = (
                f"{'unmeasured' if row['bytes'] else 'not built'}: {reason(one.get('reason') or row['top1']['reason'])}"
            )
        cells = [f"{targets.get(one['flavour']).title} {one['precision']}", one["version"] or "-"]
        cells += [number(difference, ".1g"), top1, number(row["bytes"], ".2f", 1e6), number(package, ".0f", 1e6)]
        yield [*cells, number(cold, ".0f"), number(memory, ".0f", 1e6)]
    for name, why in absent.items():
        yield [targets.get(name).title, "-", "-", f"unmeasured: {reason(why)}", "-", "-", "-", "-"]


def deit_rows(found: Mapping[tuple[str, str], Any]) -> Iterator[list[str]]:
    """The rows of DeiT-Tiny."""
    for (name, precision), one in found.items():
        cells = [f"{targets.get(name).title} {precision}"]
        if "reason" in one:
            yield [*cells, "-", "-", reason(one["reason"]), "-", "-", "-"]
            continue
        cells += [number(one["seconds"], ".1f"), number(one["bytes"], ".1f", 1e6)]
        for timed in one["batches"].values():
            cells += (
                [reason(timed["reason"]), "-"]
                if "reason" in timed
                else [f"{timed['ms']:.1f}", SPEED.format(*timed["speed"])]
            )
        yield cells


@click.command(help=__doc__)
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/targets"), show_default=True)
@click.option("--install", is_flag=True, help="Make the environments of targets that have their own.")
def main(work: Path, install: bool) -> None:
    """Measure, and write the page."""
    work = work.resolve()
    kept = Kept(work / "results.json")
    known = {name: one for name, one in targets.registered().items() if one.kind == "engine"}
    own = [name for name, one in known.items() if type(one).install is not Target.install]
    for name in own if install else ():
        done = compress(ROOT, "target", "install", name)
        click.echo(done.stdout + done.stderr, err=True, nl=False)
    absent = {name: state.why for name, one in known.items() if not (state := one.available()).yes}
    here = [name for name in known if name not in absent]
    run = kept.once(f"digits {','.join(here)}", partial(digits, work, here, 15.0 * (2 + len(here))))
    deit = Deit(work / "deit", kept)
    found = {
        (name, precision): kept.once(f"deit {name} {precision}", partial(deit.built, targets.get(name), precision))
        for name in ("onnx", *(name for name in here if known[name].runs_on == "cpu"))
        for precision in (DEFAULT_PRECISIONS if name == "onnx" else known[name].default_precisions)
    }
    itself = found.pop(("onnx", "fp32"))
    purposes = [(one, FOR.get(name, one.title)) for name, one in targets.registered().items()]
    page = INTRODUCTION.format(
        purposes="\n".join(f"| `{one.name}` | {why} | [{one.title}]({Path(one.page).name}) |" for one, why in purposes)
    ) + MEASURED.format(
        machine=f"{processor()}, {physical_cores()} cores",
        commit=code_version(),
        command=run["command"],
        teacher=", ".join(f"{one['top1']['value']:.2f}" for one in run["models"] if one["label"] == "teacher, torch"),
        itself=", ".join(f"{SPEED.format(*one['speed'])} at batch {batch}" for batch, one in itself["batches"].items()),
        digits=table(DIGITS, digit_rows(run, absent)),
        deit=table(DEIT, deit_rows(found)),
    )
    PAGE.write_text(page)
    click.echo(f"wrote {PAGE}, {len(page.split())} words (a page has fewer than 1,500)")


if __name__ == "__main__":
    main()
