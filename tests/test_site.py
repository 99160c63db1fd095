"""The documentation site: it builds without a warning and loads nothing, and the tutorials name what there is."""

from __future__ import annotations

import re
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import vitcompress
from vitcompress.pipeline.cli import cli
from vitcompress.pipeline.config.load import merge, parse_sets, validate
from vitcompress.pipeline.config.show import schema

pytest.importorskip("material", reason="the site needs mkdocs-material")
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))


def ids(page: Path) -> set[str]:
    return set(re.findall(r'\bid="([^"]+)"', page.read_text()))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.parent != site / "gallery" or page.name == "index.html"]
    assert len(pages) > 80
    tag = re.compile(r'<(?:script|img|iframe|link)\b[^>]*? (?:src|href)="?([^" >]+)')
    loaded = {address for page in pages for address in tag.findall(page.read_text())}
    assert any(address.endswith("iframe-worker.js") for address in loaded)
    assert [address for address in loaded if re.match(r"(https?:)?//", address)] == []
    assert (site / "search" / "search_index.js").read_text().startswith("var __index")


def test_pictures_are_whole() -> None:
    pictures = sorted((ROOT / "docs").rglob("*.svg"))
    assert pictures
    for picture in pictures:
        ET.parse(picture)  # noqa: S314 - our own; a browser shows nothing of one that is no XML


def test_the_reference_has_every_name_setting_and_command(site: Path) -> None:
    python = ids(site / "reference" / "python.html")
    assert [name for name in vitcompress.__all__ if f"vitcompress.{name}" not in python] == []
    assert "vitcompress.Run.verdict" in python
    found = set().union(*(ids(page) for page in (site / "reference" / "settings").glob("*.html")))
    assert {"seed", "distill.alpha", "data.augment.crop_scale", "distill.features[].kind", "gates.only"} <= found
    defs = schema()["$defs"]
    assert [name for name in defs["GatesConfig"]["properties"] if f"gates.{name}" not in found] == []
    commands = (site / "reference" / "commands.html").read_text()
    assert [name for name in cli.commands if f"compress {name}" not in commands] == []


@pytest.mark.parametrize(
    ("files", "nav"),
    [
        ({"index.md": "[there](gone.md)"}, ["index.md"]),
        ({"index.md": "[there](#no-such-heading)"}, ["index.md"]),
        ({"index.md": "# Home", "outside.md": "# Not in the navigation"}, ["index.md"]),
        ({"index.md": "# Home"}, ["index.md", "missing.md"]),
    ],
)
def test_a_fault_fails_the_build(files: dict[str, str], nav: list[str], tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name, text in files.items():
        (tmp_path / "docs" / name).write_text(text)
    changed: dict[str, Any] = {"docs_dir": str(tmp_path / "docs"), "site_dir": str(tmp_path / "site")}
    config = load_config(str(ROOT / "mkdocs.yml"), nav=nav, hooks=[], plugins=[], theme="mkdocs", **changed)
    with pytest.raises(Abort):
        build(config)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each `compress` of the tutorials' blocks, as the words of a shell."""
    for page in TUTORIALS:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("compress "):
                    yield page.stem, shlex.split(line.partition(" > ")[0])[1:]


@pytest.mark.parametrize(
    ("page", "words"), list(commands()), ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_a_command_of_a_tutorial_can_be_given(page: str, words: list[str]) -> None:
    command: click.Command = cli
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    context = command.make_context("compress", words)  # unknown options and wrong values are refused here
    config: dict[str, Any] = {"teacher": {"model": "cait_s24"}, "student": {"model": "deit_tiny"}}
    config |= {"data": {"task": "embedding"}} if page == "embeddings" else {}
    assert validate(merge(config, parse_sets(context.params.get("settings") or ()))).teacher.model == "cait_s24"
