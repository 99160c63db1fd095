"""Tables of what was exported: precisions, engines, and where each ended up."""

from __future__ import annotations

from typing import Any

from vitcompress.pipeline.report.artifacts import place, products
from vitcompress.pipeline.report.html.parts import Cell, Table, columns, number_cell
from vitcompress.pipeline.report.wording import Footnotes, megabytes

_NODES_SHOWN = 4


def precisions_table(report: dict[str, Any]) -> Table:
    """The deployed graph in every precision: how it was made, how far it is from fp32, whether it is shipped."""
    made, notes = report["artifacts"], Footnotes()
    fp32 = made["student"][made["deployed"]]
    exported = [Cell("torch, exported"), Cell("reference"), Cell("reference"), Cell("-")]
    rows = [[Cell("fp32"), *exported, *_file(fp32), Cell(place(made, "onnx", "fp32"))]]
    for precision, one in made["reduced"].items():
        how = one["reduced"]
        lacking = how["measured"] or "nothing was compared"
        method = how["method"] + (f"; {how['calibration']}" if how["calibration"] else "")
        rows.append(
            [
                Cell(precision),
                Cell(method),
                number_cell(how["difference"], ".2g", lacking, notes),
                number_cell(how["agreement"], ".4g", lacking, notes),
                Cell(_nodes(how["kept_fp32"])),
                *_file(one),
                Cell(place(made, "onnx", precision)),
            ]
        )
    titles = (
        "ONNX",
        "made by",
        "logits differ, of their spread",
        "same top-1, share",
        "left in fp32",
        "matrix products in",
        "size",
        "in the bundle",
    )
    words = ("made by", "left in fp32", "matrix products in", "in the bundle")
    lines = [*notes.lines(), *(f"No {precision}: {why}" for precision, why in made["missing"].items())]
    return Table("The deployed graph in each precision", columns(*titles, words=words), rows, lines)


def _file(one: dict[str, Any]) -> list[Cell]:
    return [Cell(products(one["operators"])), Cell(f"{one['megabytes']:.2f} MB", sort=one["megabytes"])]


def _nodes(names: list[str]) -> str:
    if not names:
        return "nothing more"
    more = f" and {len(names) - _NODES_SHOWN} more" if len(names) > _NODES_SHOWN else ""
    return ", ".join(names[:_NODES_SHOWN]) + more


def engines_table(report: dict[str, Any]) -> Table | None:
    """TensorRT engines, built or not; None where none was asked for."""
    made = report["artifacts"]
    if not made["engines"]:
        return None
    titles = ("engine", "precision", "graph's products in", "as built", "runs on", "batch", "built in, s", "size")
    rows = [_engine(made, one) for one in made["engines"]]
    notes = ["float32 products may be rounded to TF32 on the way, TensorRT's default."]
    words = ("precision", "graph's products in", "as built", "runs on", "batch", "in the bundle")
    return Table(
        "What each engine computes in, and runs on",
        columns(*titles, "in the bundle", words=words),
        rows,
        notes if any(one["tf32"] for one in made["engines"]) else (),
    )


def _engine(made: dict[str, Any], one: dict[str, Any]) -> list[Cell]:
    name = [Cell(f"{one['flavour']} {one['version'] or ''}".strip()), Cell(one["precision"])]
    if one["status"] != "built":
        return [*name, *[Cell("-")] * 6, Cell(f"not built: {one['reason']}")]
    source = f" ({one['hardware_source']})" if one["hardware_source"] else ""
    size = one["file"]["bytes"] if one["file"] else None
    return [
        *name,
        Cell(products(one["layers"])),
        Cell(products(one["built_layers"] or {})),
        Cell((", ".join(one["hardware"]) + source) or "-"),
        Cell(f"{one['min_batch']} to {one['max_batch']}"),
        Cell("-" if one["seconds"] is None else f"{one['seconds']:.1f}", sort=one["seconds"]),
        Cell("-" if size is None else megabytes(size, "", Footnotes()), sort=size),
        Cell(place(made, one["flavour"], one["precision"])),
    ]


def gpu_table(report: dict[str, Any]) -> Table | None:
    """GPU compute of the engines alone beside end to end; None where no engine was run."""
    rows = [row for row in report["latency"] if row["gpu_p50_ms"] is not None]
    if not rows:
        return None
    cells = [
        [
            Cell(f"{row['runtime']} {row['precision']}"),
            Cell(str(row["batch"]), sort=row["batch"]),
            Cell(f"{row['gpu_p50_ms']:.3f}", sort=row["gpu_p50_ms"]),
            Cell("-" if row["p50_ms"] is None else f"{row['p50_ms']:.3f}", sort=row["p50_ms"]),
        ]
        for row in rows
    ]
    head = columns("engine", "batch", "p50, ms, GPU compute", "p50, ms, end to end")
    return Table("Engines on the GPU", head, cells, [rows[0]["gpu_method"]])


def bundle_lines(report: dict[str, Any]) -> list[str]:
    """What the bundle recommends, and why."""
    made = report["artifacts"]
    bundle = made["bundle"]
    lines = [
        f"Deployed graph: {made['deployed']} ({made['deployed_why']}).",
        f"Recommended in ONNX Runtime: {bundle['onnx']} ({bundle['onnx_why']}).",
    ]
    if bundle["engine"]:
        runtime, precision = bundle["engine"]
        lines.append(f"Recommended engine: {runtime} {precision} ({bundle['engine_why']}).")
    elif not made["engines"]:
        lines.append(f"TensorRT engines: none: {made['engines_why']}.")
    rewrites = made["student"][made["deployed"]]["rewrites"]
    return [*lines, f"Rewritten exactly before export: {'; '.join(rewrites) or 'nothing'}."]
