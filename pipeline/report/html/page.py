"""The page: everything the template shows, and the template."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vitcompress.pipeline.report.html import capacity, headline, made, measured, timing
from vitcompress.pipeline.report.html.analysis import analysis
from vitcompress.pipeline.report.html.classes import classes
from vitcompress.pipeline.report.html.flips import KINDS, UNFOLDED, flips
from vitcompress.pipeline.report.html.parts import sentence
from vitcompress.pipeline.report.html.terms import TERMS
from vitcompress.pipeline.report.html.tradeoff import tradeoff
from vitcompress.pipeline.report.html.training import trainings
from vitcompress.pipeline.report.wording import data_remarks, fact


def render(report: Mapping[str, Any], root: Path) -> str:
    """The report of ``document.build`` as one HTML page that needs no other file and no network.

    Text of the report is escaped wherever it stands; the page's own policy lets nothing be loaded and no script run
    but its own.

    Args:
        report: of the current schema.
        root: the run, whose pictures (figures of the analysis, flipped images) are put into the page. One that is gone
            is said on the page.
    """
    assets = Environment(
        loader=PackageLoader("vitcompress.pipeline.report.html", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    assets.filters["stop"] = sentence
    assets.filters["remarks"] = data_remarks
    script, style = _source(assets, "script.js"), _source(assets, "style.css")
    page = assets.get_template("page.html").render(
        report=report,
        style=Markup(style),  # noqa: S704 - this package's own file
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        verdict_kind=headline.VERDICT_KINDS.get(report["verdict"]["word"], headline.PLAIN_VERDICT),
        terms=TERMS,
        flip_kinds=KINDS,
        flips_unfolded=UNFOLDED,
        config=yaml.safe_dump(report["config"], sort_keys=False, allow_unicode=True),
        environment={key.replace("_", " "): fact(value) for key, value in report["environment"].items()},
        **_content(dict(report), root),
    )
    # A file name that is no valid Unicode must not cost the report.
    return page.encode("utf-8", "replace").decode()


def _content(report: dict[str, Any], root: Path) -> dict[str, Any]:
    """Tables and figures, by the name that the template knows them by."""
    return {
        "sentence": headline.sentence(report),
        "blocking": headline.reasons(report, "blocking"),
        "undecided": headline.reasons(report, "open"),
        "big_figures": headline.big_figures(report),
        "tradeoff": tradeoff(report),
        "gates": measured.gates_table(report),
        "models": measured.models_table(report),
        "graphs": measured.graphs_table(report),
        "agreement": measured.agreement_table(report),
        "how_measured": timing.how_measured(report),
        "latency_figures": timing.latency_figures(report),
        "throughput": capacity.throughput_figure(report),
        "memory": capacity.memory_table(report),
        "trainings": trainings(report),
        "flips": flips(report, root),
        "classes": classes(report),
        "precisions": made.precisions_table(report),
        "engines": made.engines_table(report),
        "on_gpu": made.gpu_table(report),
        "bundle_lines": made.bundle_lines(report),
        "analysis": analysis(report, root),
    }


def _source(assets: Environment, name: str) -> str:
    """A file of the package as it is, not as a template."""
    loader = assets.loader
    assert loader is not None  # given above  # noqa: S101
    return loader.get_source(assets, name)[0]
