"""What `make site` does beside MkDocs: pages made of the code, notebooks, and files that lie outside of docs/.

Each page of this repository links to others by their paths in it, as GitHub shows them. On the site some of these pages
lie elsewhere, or are made of something else; `on_page_markdown` turns the links.
"""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
import re
from pathlib import Path
from typing import Any

import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
RESULTS = sorted(path for path in (ROOT / "benchmarks" / "results").iterdir() if path.is_file())
PROJECT = sorted(path.name for path in ROOT.glob("*.md") if path.name != "README.md")
"""Pages at the top of the repository; README.md is for those who come from there."""
MOVED = {
    **{name: f"project/{name}" for name in PROJECT},
    **{f"benchmarks/results/{path.name}": f"results/{path.name}" for path in RESULTS},
    **{f"docs/notebooks/{path.name}": f"notebooks/{path.stem}.md" for path in NOTEBOOKS},
}
"""Where on the site is what has another place in the repository: path there to path here."""
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")
MERMAID = re.compile(r"```mermaid\n(.*?)```", re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give the pages that are made their places in the navigation."""
    nav: dict[str, list[Any]] = {title: pages for entry in config.nav for title, pages in entry.items()}
    nav["Reference"] += [{"Settings": [f"reference/settings/{name}.md" for name in reference.settings()]}]
    nav["Project"] += [MOVED[name] for name in PROJECT]
    nav["Measured"] += [{"Tables": [f"results/{path.name}" for path in RESULTS if path.suffix == ".md"]}]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and the files outside of docs/."""
    made: dict[str, str | bytes] = {
        "reference/python.md": reference.python_page(),
        "reference/commands.md": reference.commands_page(),
        "reference/schemas.md": reference.schemas_page(DOCS / "schemas"),
        **{f"reference/settings/{name}.md": page for name, page in reference.settings().items()},
        **{place: (ROOT / path).read_text() for path, place in MOVED.items() if not path.startswith("docs/")},
    }
    for path in NOTEBOOKS:
        made |= _notebook(path)
    for place, content in made.items():
        files.append(File.generated(config, place, content=content))
    return files


def _notebook(path: Path) -> dict[str, str | bytes]:
    """Return the page of a notebook, with the outputs that were committed, and the pictures in it."""
    pictures: dict[str, str | bytes] = {}
    parts: list[str] = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}-{len(pictures) + 1}.png"
                pictures[f"notebooks/{name}"] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![What the cell drew]({name})")
            else:
                text = "".join(output.get("text") or data["text/plain"])
                parts.append(f"```text\n{text.rstrip()}\n```")
    return {MOVED[f"docs/notebooks/{path.name}"]: "\n\n".join(parts), **pictures}


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to where their files are on the site, and diagrams to the pictures made of them."""
    here = page.file.src_uri
    source = {place: path for path, place in MOVED.items()}.get(here, f"docs/{here}")

    def turned(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        place = MOVED.get(target) or posixpath.relpath(target, "docs")
        return f"]({posixpath.relpath(place, posixpath.dirname(here) or '.')}{match[2] or ''})"

    def drawn(match: re.Match[str]) -> str:
        name = f"images/diagram-{hashlib.sha256(match[1].encode()).hexdigest()[:8]}.svg"
        if files.get_file_from_path(name) is None:
            raise PluginError(f"docs/{name}, a diagram's picture, is missing; make it: sh docs/site/draw.sh {source}")
        picture = posixpath.relpath(name, posixpath.dirname(here) or ".")
        return f"[![The diagram]({picture})]({picture})"

    return MERMAID.sub(drawn, LINK.sub(turned, markdown))
