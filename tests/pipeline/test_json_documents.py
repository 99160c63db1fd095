"""`--json`: what every command prints keeps to its published schema, and stands alone on stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from check.made_runs import made, written
from command_line import SCHEMAS, document, in_process
from report.sample_reports import CASES, report_of

import vitcompress as vc
from vitcompress.core import errors
from vitcompress.pipeline import cli
from vitcompress.pipeline.commands.documents import schema_files
from vitcompress.pipeline.commands.output import put

OWN_OUTPUT = {"completion", "trial"}
"""The answer of one is a program for a shell; workers of a sweep start the other."""


def commands(group: click.Group) -> Iterator[click.Command]:
    """Every command that does something itself."""
    for command in group.commands.values():
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield command
        if isinstance(command, click.Group):
            yield from commands(command)


def test_the_published_schemas_are_those_of_the_code() -> None:
    for path, text in schema_files():
        assert path.read_text() == text, "python -m vitcompress.pipeline.commands.documents writes them anew"


def test_every_command_has_json() -> None:
    lacking = {
        command.name for command in commands(cli.cli) if not any("--json" in param.opts for param in command.params)
    }
    assert lacking == OWN_OUTPUT


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("recipes",), "recipes"),
        (("recipes", "show", "digits"), "recipes-show"),
        (("models", "deit_t*"), "models"),
        (("target", "list"), "target-list"),
        (("target", "remove", "litert"), "target-environment"),
        (("config", "schema"), "config-schema"),
        (("config", "show", "--teacher", "cait_s24", "--student", "deit_tiny"), "config-show"),
        (("doctor",), "doctor"),
        (("data", "pack", "digits", "packed", "--size", "8"), "data-pack"),
    ],
)
def test_commands_without_a_run_keep_to_their_schema(
    words: tuple[str, ...], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPRESS_TARGETS", str(tmp_path / "targets"))
    told = in_process(*words, "--json")
    found = document(told.out, name)
    assert told.code == (0 if found.get("healthy", True) else 3)
    if name == "target-environment":
        assert (found["installed"], found["changed"]) == (False, False)
    if name == "data-pack":
        assert (found["images"], found["folder"]) == (1438, str(tmp_path / "packed"))


def test_comparisons_keep_to_their_schemas_and_say_what_the_files_say(tmp_path: Path) -> None:
    run, worse = written(tmp_path / "run", made()), written(tmp_path / "worse", made(lost=100))
    baseline = tmp_path / "baseline.json"
    updated = in_process("check", run, "--baseline", baseline, "--update", "--json")
    assert str(baseline) in document(updated.out, "check-update")["lines"][0]
    told = in_process("check", worse, "--baseline", baseline, "--json")
    found = document(told.out, "check")
    assert (told.code, found["verdict"]["exit_code"], found["verdict"]["word"]) == (1, 1, "FAIL")
    kept = json.loads((worse / "report" / "check.json").read_text())
    assert {name: found[name] for name in kept} == kept
    both = document(in_process("compare", run, worse, "--output", tmp_path / "out", "--json").out, "compare")
    assert str(tmp_path / "out" / "compare.json") in both["written"]
    kept = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert {name: both[name] for name in kept} == kept
    best = document(in_process("compare-targets", run, "--json").out, "compare-targets")
    assert {name: best[name] for name in vc.compare_targets(run)} == vc.compare_targets(run)


@pytest.mark.parametrize("case", sorted(CASES))
def test_the_summary_of_any_run_keeps_to_its_schema(case: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = vc.Run(written(tmp_path, report_of(CASES[case])))
    assert put("run", run.summary, 1) == 1
    found = document(capsys.readouterr().out, "run")
    assert {name: found[name] for name in ("verdict", "headline", "models", "gates")} == {
        name: run.report[name] for name in ("verdict", "headline", "models", "gates")
    }
    assert Path(found["report"]).is_file()


def test_stdout_holds_one_document_whatever_else_is_printed() -> None:
    program = (
        "import os, sys, click, vitcompress.pipeline.cli as cli\n"
        "from vitcompress.pipeline.commands.output import json_option, put\n"
        "def tell(as_json):\n    print('python'); os.write(1, b'library in C\\n'); os.system('echo process')\n"
        "    return put('models', {'models': [os.fsdecode(b'\\xe9')]})\n"
        "cli.cli.commands['doctor'] = click.command('doctor')(json_option(tell))\ncli.main(['doctor', '--json'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, document(done.stdout, "models")["models"]) == (0, ["\udce9"])
    assert {"python", "library in C", "process"} <= set(done.stderr.splitlines())


def test_the_page_has_every_exit_code_and_no_other() -> None:
    page = (SCHEMAS.parent / "machine-readable.md").read_text()
    table = {int(line.split("|")[1]) for line in page.splitlines() if line.split("|")[1:2] and line[2:3].isdigit()}
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_") and isinstance(value, int)}
    assert table == codes
