"""The report's words on what was exported: precisions, engines, and what of it the bundle holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitcompress.pipeline.report.wording import Footnotes, megabytes, plain, table

_PRODUCTS = ("matmul", "gemm", "conv", "correlation")
"""Types of operators and layers; the last is what tensorrt-rtx makes of a convolution."""
_SHOWN = 4


def markdown(report: dict[str, Any]) -> str:
    """Markdown of the report's ``artifacts``: how each was made, what it really computes in, where it ended up."""
    made = report["artifacts"]
    sections = [_precisions(made), _engines(made), _on_gpu(report["latency"]), _bundle(made)]
    return "\n\n".join(section for section in sections if section)


def _precisions(made: dict[str, Any]) -> str:
    notes = Footnotes()
    fp32 = made["student"][made["deployed"]]
    rows = [
        [
            "fp32",
            "torch, exported",
            "-",
            "-",
            "-",
            products(fp32["operators"]),
            _size(fp32),
            plain(place(made, "onnx", "fp32")),
        ]
    ]
    for precision, one in made["reduced"].items():
        how = one["reduced"]
        rows.append(
            [
                precision,
                plain(how["method"]) + (f"; {plain(how['calibration'])}" if how["calibration"] else ""),
                _share(how["difference"], how["measured"], notes, ".2g"),
                _share(how["agreement"], how["measured"], notes, ".4g"),
                _nodes(how["kept_fp32"]),
                products(one["operators"]),
                _size(one),
                plain(place(made, "onnx", precision)),
            ]
        )
    header = ["ONNX", "made by", "logits differ, of their spread", "same top-1", "left in fp32", "matrix products in"]
    lines = ["### Precisions", "", table([*header, "size", "bundle"], rows), ""]
    lines += [f"- no {precision}: {plain(why)}" for precision, why in made["missing"].items()]
    lines += [f"- {plain(line)}" for line in notes.lines()]
    lines += [f"- rewritten exactly before export: {plain('; '.join(fp32['rewrites']) or 'nothing')}"]
    return "\n".join(lines)


def _engines(made: dict[str, Any]) -> str:
    if not made["engines"]:
        return f"TensorRT engines: none: {plain(made['engines_why'])}"
    rows = []
    for one in made["engines"]:
        hardware = ", ".join(one["hardware"]) + (f" ({one['hardware_source']})" if one["hardware_source"] else "")
        built = one["status"] == "built"
        rows.append(
            [
                f"{one['flavour']} {one['version'] or ''}".strip(),
                one["precision"],
                products(one["layers"]) if built else "-",
                products(one["built_layers"] or {}) if built else "-",
                plain(hardware) or "-",
                f"{one['min_batch']} to {one['max_batch']}" if built else "-",
                f"{one['seconds']:.1f}" if built else "-",
                megabytes(one["file"]["bytes"], "", Footnotes()) if one["file"] else "-",
                plain(place(made, one["flavour"], one["precision"])) if built else f"not built: {plain(one['reason'])}",
            ]
        )
    header = [
        "engine",
        "precision",
        "products of the graph in",
        "as built",
        "runs on",
        "batch",
        "built in s",
        "size",
        "bundle",
    ]
    lines = ["### Engines", "", table(header, rows), ""]
    if any(one["tf32"] for one in made["engines"]):
        lines.append("- float32 products may be rounded to TF32 on the way, TensorRT's default.")
    return "\n".join(lines).rstrip()


def _on_gpu(latency: list[dict[str, Any]]) -> str:
    """GPU compute of the engines alone, where any was run."""
    rows = [row for row in latency if row["gpu_p50_ms"] is not None]
    cells = [
        [f"{row['runtime']} {row['precision']}", str(row["batch"]), f"{row['gpu_p50_ms']:.3f}", f"{row['p50_ms']:.3f}"]
        for row in rows
    ]
    if not rows:
        return ""
    body = table(["engine", "batch", "p50 ms, GPU compute", "p50 ms, end to end"], cells)
    return "\n".join([body, "", plain(rows[0]["gpu_method"])])


def _bundle(made: dict[str, Any]) -> str:
    bundle = made["bundle"]
    lines = [f"Recommended in ONNX Runtime: {bundle['onnx']} ({plain(bundle['onnx_why'])})."]
    if bundle["engine"]:
        runtime, precision = bundle["engine"]
        lines.append(f"Recommended engine: {runtime} {precision} ({plain(bundle['engine_why'])}).")
    return "\n".join(lines)


def place(made: dict[str, Any], runtime: str, precision: str) -> str:
    """Whether the bundle has it, and if not why."""
    for one in made["bundle"]["rejected"]:
        if (one["runtime"], one["precision"]) == (runtime, precision):
            return f"no: {one['why']}"
    return "yes"


def products(operators: Mapping[str, Mapping[str, int]]) -> str:
    """What the matrix products of a graph or an engine compute in: ``48 fp16, 1 fp32``."""
    counts: dict[str, int] = {}
    for kind, dtypes in operators.items():
        if kind.lower() in _PRODUCTS:
            for dtype, count in dtypes.items():
                counts[dtype] = counts.get(dtype, 0) + count
    return ", ".join(f"{count} {dtype}" for dtype, count in sorted(counts.items(), key=lambda item: -item[1])) or "-"


def _share(value: float | None, reason: str, notes: Footnotes, form: str) -> str:
    return notes.mark(reason or "nothing was compared") if value is None else format(value, form)


def _nodes(names: list[str]) -> str:
    """The first few names, and how many more."""
    if not names:
        return "nothing more"
    shown = ", ".join(plain(name) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _size(one: Mapping[str, Any]) -> str:
    return f"{one['megabytes']:.2f} MB"
