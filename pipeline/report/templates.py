"""The templates of the page, the Markdown and JUnit, with the words that they share."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from vitcompress.core.words import counted
from vitcompress.pipeline.report import readings, report_tables, table, wording
from vitcompress.pipeline.report.deploy_table import deploying


def environment(*, markdown: bool = False) -> Environment:
    """Return the environment of the templates in ``html/assets``; text is escaped for HTML and XML, or ``markdown``."""

    def escaped(value: Any) -> str:
        return value if isinstance(value, table.Markdown) else wording.plain(value)

    found = Environment(
        loader=PackageLoader("vitcompress.pipeline.report.html", "assets"),
        autoescape=not markdown,  # noqa: S701 - in Markdown ``finalize`` escapes
        finalize=escaped if markdown else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "table": table.markdown,
        "code": lambda value: table.Markdown(wording.code(value)),
        "spoken": wording.spoken,
        "opened": wording.opened,
        "stop": wording.stopped,
        "remarks": wording.data_remarks,
        "fact": wording.fact,
        "counted": counted,
    }
    found.globals |= {
        "deploying": deploying,
        "tables": report_tables,
        "readings": readings,
        "wording": wording,
        "Output": table.Output,
    }
    return found
