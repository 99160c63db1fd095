"""The report's table of what each artifact takes to deploy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vitcompress.pipeline.report.models import MEGABYTE
from vitcompress.pipeline.report.readings import Report
from vitcompress.pipeline.report.report_tables import EVERYWHERE, MODELS, Row, at, cost
from vitcompress.pipeline.report.table import Column, Output, Table, Value
from vitcompress.pipeline.report.wording import megabytes, significant
from vitcompress.stages.judging.contestant import IN_TORCH


def _part(name: str) -> Callable[[Row], Value]:
    return lambda row: row["cold_start_parts"].get(name)


def whole_megabytes(value: float) -> str:
    """Format a size in bytes as a whole number of MB (10^6 bytes)."""
    return f"{value / MEGABYTE:,.0f}"


COLUMNS = (
    *MODELS[:2],
    Column("file", cost("bytes", "bytes_reason"), megabytes, "MB", EVERYWHERE, "file MB"),
    Column("package", at("package"), whole_megabytes, "MB", EVERYWHERE, "package MB"),
    Column("cold start", at("cold_start"), significant, "ms", EVERYWHERE, "cold ms"),
    Column("import", _part("import_ms"), significant, "ms", Output.DETAILS, absent="-"),
    Column("load", _part("load_ms"), significant, "ms", Output.DETAILS, absent="-"),
    Column("first image", _part("first_ms"), significant, "ms", Output.DETAILS, absent="-"),
    Column("peak memory", at("memory"), whole_megabytes, "MB", EVERYWHERE, "memory MB"),
    Column("energy", at("energy"), significant, "J an image", EVERYWHERE, "J"),
)


def deploying(report: Report) -> Table | None:
    """Return what each artifact takes to deploy, of a report or of another machine in it; None where nobody looked."""
    rows = [row for row in report["models"] if row["runtime"] not in IN_TORCH]
    if not any(row[name]["value"] for row in rows for name in ("memory", "cold_start", "package")):
        return None
    lines = [
        "Package: the runtime as installed, with what it requires but without Python, and the file.",
        "Cold start: import of the runtime, load and first image in a fresh process with Python and numpy, the disk's "
        "cache warm; median [fastest, slowest]. An ONNX file runs on the CPU in that process.",
    ]
    columns: Sequence[Column] = COLUMNS
    if "machine" in report:  # no number of another machine stands without its name
        columns = (*COLUMNS[:2], Column("measured on", lambda row: report["machine"]), *COLUMNS[2:])
    if not any(row["energy"]["value"] for row in rows):  # few processors tell it
        columns = columns[:-1]
        lines.append(f"Energy, unmeasured: {next(row for row in rows if row['deployed'])['energy']['reason']}.")
    if where := report.get("machine"):
        rows = [row | {"label": f"{row['label']} on {where}"} for row in rows]
    return Table("Each artifact in a fresh process", columns, rows, at("deployed"), lines)
