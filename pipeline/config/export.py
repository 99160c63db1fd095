"""Decide what is exported, and in which precisions what other targets build."""

from __future__ import annotations

from vitcompress.core.errors import UsageError
from vitcompress.exporters import targets
from vitcompress.exporters.tensorrt import choose_flavour
from vitcompress.pipeline.config.choice import Choice
from vitcompress.pipeline.config.facts import Facts
from vitcompress.pipeline.config.model import RunConfig
from vitcompress.stages.export.config import DEFAULT_PRECISIONS


def target(config: RunConfig, facts: Facts) -> Choice:
    """Decide ``export.target``; onnx comes first, since everything else is made of it."""
    export = config.export
    if export.target != "auto":
        for wanted in export.engines:
            targets.get(wanted).require()
        return Choice(("onnx", *(one for one in export.target if one != "onnx")))
    chosen, why = choose_flavour("auto")
    engines = () if chosen == "none" else (chosen,)
    return Choice(("onnx", *engines, "triton"), why)


def engine_precision(config: RunConfig, facts: Facts) -> Choice:
    """Decide ``export.engine_precision``.

    A UsageError is raised where one of them has no graph, or what is to be deployed is not among them.
    """
    export = config.export
    wanted = export.engine_precisions
    if lacking := [one for one in wanted if one not in export.precisions]:
        raise UsageError(
            f"export.engine_precision is {', '.join(wanted)}, but export.precision, {', '.join(export.precisions)}, "
            f"has no {' and no '.join(lacking)} graph to build it of; add it there, or leave it out here."
        )
    if export.engines and export.deploy not in ("fastest", *wanted):
        raise UsageError(
            f"export.deploy is {export.deploy}, which is not among export.engine_precision, {', '.join(wanted)}; add "
            "it there, or give fastest."
        )
    if export.engine_precision != "auto":
        return Choice(wanted)
    if export.precision != DEFAULT_PRECISIONS:
        return Choice(wanted, "those of export.precision")
    return Choice(
        wanted, "what each target is usually deployed in" if export.deploy == "fastest" else "the one of export.deploy"
    )
