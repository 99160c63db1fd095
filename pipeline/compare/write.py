"""The files of a comparison."""

from __future__ import annotations

import json
from pathlib import Path

from vitcompress.core.errors import UsageError
from vitcompress.core.files import unwritable, write_atomic
from vitcompress.pipeline.compare import tell
from vitcompress.pipeline.compare.pareto import standings
from vitcompress.pipeline.compare.read import Comparison


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """``compare.md``, ``compare.json`` and the plot as PNG and SVG into ``folder``, over those of an earlier one.

    Raises:
        UsageError: ``folder`` is a file or cannot be written.
    """
    from vitcompress.pipeline.compare.plot import pareto_figure  # matplotlib takes long to import
    from vitcompress.stages.analysis.figures.draw import file_bytes

    found = standings(comparison)
    figure = pareto_figure(comparison, found)
    files: dict[str, str | bytes] = {
        "compare.md": tell.markdown(comparison, found),
        "compare.json": json.dumps(tell.document(comparison, found), indent=2, allow_nan=False) + "\n",
        **{f"pareto.{kind}": content for kind, content in file_bytes(figure).items()},
    }
    try:
        for name, content in files.items():
            write_atomic(folder / name, content)
    except OSError as error:
        raise UsageError(
            f"output '{folder}' cannot be written ({unwritable(error)}); give a folder you may write to with --output."
        ) from error
    return [folder / name for name in files]
