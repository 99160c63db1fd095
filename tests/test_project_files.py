"""The files by which others join: forms, workflows, citation, release notes. Each keeps its published schema."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "custom.github-workflows-require-timeout": WORKFLOWS,
    "vendor.github-issue-forms": sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")),
    "vendor.github-issue-config": [ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml"],
    "vendor.citation-file-format": [ROOT / "CITATION.cff"],
}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def run(*words: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_of_the_project_keep_their_published_schema(schema: str) -> None:
    assert SCHEMAS[schema]
    done = run("-m", "check_jsonschema", "--builtin-schema", schema, "--default-filetype", "yaml", *SCHEMAS[schema])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_pin_actions_by_commit_read_no_input_as_a_command_and_may_write_only_where_they_do(
    path: Path,
) -> None:
    used = re.findall(r"uses: (\S+)(.*)", path.read_text())
    for name, told in used:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name), name
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", told), name
    flow = yaml.safe_load(path.read_text())
    assert flow["permissions"] == {"contents": "read"}
    assert "secrets." not in path.read_text()
    for job in flow["jobs"].values():
        checks_out = any("actions/checkout" in step.get("uses", "") for step in job["steps"])
        assert not (checks_out and "permissions" in job)  # what runs code of the repository may only read
        assert not any("${{" in step.get("run", "") for step in job["steps"])


def test_the_workflow_runs_what_decides_on_each_python_that_the_package_names() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert jobs["run"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert {"run": "bash .ci/run"} in jobs["run"]["steps"]


def test_hooks_download_nothing_and_have_the_file_that_they_start() -> None:
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    for hook in repos[0]["hooks"]:
        assert hook["language"] == "pygrep" or hook["entry"].startswith(".venv/bin/")
        assert hook["language"] in {"system", "pygrep"}


def test_the_citation_is_of_this_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == VERSION


@pytest.mark.parametrize(
    ("heading", "asked", "said"),
    [
        (f"## {VERSION} - 2027-01-01", VERSION, "### Added\n- This."),
        (f"## {VERSION}", VERSION, "### Added\n- This."),
        ("## Unreleased", VERSION, "says nothing of"),
        (f"## {VERSION}.1", VERSION, "says nothing of"),
        (f"## {VERSION}", "9.9.9", "not 9.9.9"),
    ],
)
def test_release_notes_are_the_section_of_the_version_or_a_reason(
    heading: str, asked: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / ".ci").mkdir()
    for name in (".ci/release-notes", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    text = f"# Changelog\n\n{heading}\n\n### Added\n- This.\n\n## 0.0.9 - 2026-01-01\n\n- That.\n"
    (tmp_path / "CHANGELOG.md").write_text(text)
    done = run(tmp_path / ".ci" / "release-notes", asked)
    assert said in (done.stdout or done.stderr)
    assert (done.returncode, "That" in done.stdout) == (0 if "This" in said else 1, False)


def test_a_wheel_of_the_source_distribution_is_whole(tmp_path: Path) -> None:
    """Links are not in a source distribution."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("core", "exporters", "pipeline", "stages", "vitcompress"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys; from setuptools import build_meta as b; getattr(b, 'build_' + sys.argv[1])(sys.argv[2])"
    assert run("-c", build, "sdist", tmp_path, cwd=source).returncode == 0
    (packed,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(packed, tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert run("-c", build, "wheel", tmp_path, cwd=unpacked).returncode == 0
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        f"vitcompress/{path.relative_to(ROOT)}" for name in ("core", "stages") for path in (ROOT / name).rglob("*.py")
    }
    assert ours <= names
    assert {"vitcompress/pipeline/recipes/digits.yaml", "vitcompress/exporters/web/page.html"} <= names
