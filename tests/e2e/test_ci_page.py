"""docs/ci.md carried out in its order, as far as a machine without GitHub can, and the CI files' own steps."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import ENVIRONMENT

ROOT = Path(__file__).parents[2]
ACTION = ROOT / ".github" / "actions" / "compress" / "action.yml"
GITLAB = ROOT / "docs" / "ci" / "gitlab-ci.yml"
RUN = "runs/cait_s24-deit_tiny-plain-digits"
SHORT = (
    (r"epochs: \d+", "epochs: 1, warmup_epochs: 0"),
    ("latency_seconds: 10", "latency_seconds: 0.4"),
    ("max_accuracy_drop: 5", "max_accuracy_drop: 100"),
)
"""What this test makes shorter; after one epoch the teacher may know more or less than the student."""


Done = subprocess.CompletedProcess[str]


def shell(place: Path, text: str, **variables: str) -> Done:
    """A script as CI runs it, with our commands first on the path."""
    env = {
        **ENVIRONMENT,
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        **variables,
    }
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text]
    return subprocess.run(words, cwd=place, env=env, capture_output=True, text=True, check=False, timeout=300)


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


def blocks() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "ci.md").read_text(), re.DOTALL)


def carried_out(place: Path, block: str) -> list[Done]:
    """The commands of a block that a machine without GitHub has, one by one: the last one is meant to fail."""
    for pattern, short in SHORT:
        block = re.sub(pattern, short, block)
    found = []
    for command in re.findall(r"(?:.*<<'END'\n(?:.*\n)*?END\n)|.+\n", block):
        outside = command.startswith(("python -m pip", "git push"))
        if not outside:
            found.append(shell(place, command, COMPRESS=str(ROOT)))
    return found


@pytest.mark.sweep
def test_the_page_leads_to_a_failing_pull_request(tmp_path: Path) -> None:
    program(tmp_path / "bin", "compress", f'exec "{sys.executable}" -m vitcompress "$@"')
    program(tmp_path / "bin", "python", f'exec "{sys.executable}" "$@"')
    name = "git config user.name reader && git config user.email reader@example.org"
    assert (
        shell(tmp_path, f"git init --quiet --initial-branch main && {name} && echo bin/ > .gitignore").returncode == 0
    )
    install, config, run, baseline, workflow, breaking, again = (carried_out(tmp_path, block) for block in blocks())
    for block in (install, config, run, workflow, breaking, baseline):
        assert [(one.returncode, one.stdout, one.stderr) for one in block if one.returncode] == []
    assert run[0].stdout.splitlines()[-2].startswith("report ")
    assert f" {RUN}/report/" in run[0].stdout
    assert again[0].returncode == 0, again[0].stderr
    assert "teacher  reused" in again[0].stderr
    assert again[1].returncode == 1, again[1].stderr
    assert "FAIL" in again[1].stdout
    assert (tmp_path / RUN / "report" / "check.md").is_file()


def steps() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(ACTION.read_text())["runs"]["steps"]
    return found


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("github-actions", ".github/actions/compress/action.yml"),
        ("github-workflows", "docs/ci/github.yml"),
        ("gitlab-ci", "docs/ci/gitlab-ci.yml"),
    ],
)
def test_ci_files_keep_their_published_schema(schema: str, path: str) -> None:
    words = ["-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", path]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_actions_are_pinned_by_commit_no_input_is_read_as_a_command_and_the_comment_alone_has_the_token() -> None:
    for path in (ACTION, ROOT / "docs" / "ci" / "github.yml"):
        used = re.findall(r"uses: (\S+)(.*)", path.read_text())
        assert used
        for name, version in used:
            assert name.startswith("OWNER/") or re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name), name
            assert name.startswith("OWNER/") or re.fullmatch(r" # v\d+\.\d+\.\d+", version), name
    scripts = "".join(step.get("run", "") for step in steps())
    assert "${{" not in scripts
    assert "GH_TOKEN" not in scripts
    assert [step.get("name") for step in steps() if "token" in str(step)] == ["Comment"]


COMPRESS = """
echo "$@" >> calls
if [ "$1" = run ]; then
    [ "$RUN_ENDS" -gt 1 ] && echo "a line" >&2 && echo "error: no \\`x\\`." >&2 && exit "$RUN_ENDS"
    mkdir -p "runs/a b/report"
    printf "## report – é\\n" > "runs/a b/report/report.md"
    echo "<testsuites/>" > "runs/a b/report/junit.xml"
    printf "PASS or not\\nreport   runs/a b/report/report.html\\nbundle   runs/a b/bundle\\n"
    exit "$RUN_ENDS"
fi
if [ "$CHECK_ENDS" -gt 1 ]; then echo "error: another model" >&2; else printf "## check\\n" > "$2/report/check.md"; fi
exit "$CHECK_ENDS"
"""
"""Stands in for compress: ends as told, leaves what compress leaves."""


class Job:
    """The action's scripts in their order, each with the environment its step has."""

    def __init__(self, place: Path, **inputs: str) -> None:
        self.place = place
        defaults = yaml.safe_load(ACTION.read_text())["inputs"]
        self.inputs = {name: entry.get("default", "") for name, entry in defaults.items()} | inputs
        self.outputs: dict[str, dict[str, str]] = {}
        self.variables = {
            "GITHUB_ACTION_PATH": str(ACTION.parent),
            "RUNNER_TEMP": str(place),
            "GITHUB_STEP_SUMMARY": str(place / "summary"),
            "GITHUB_SERVER_URL": "https://github.example",
            "GITHUB_REPOSITORY": "owner/model",
            "GITHUB_RUN_ID": "77",
        }

    def value(self, text: str) -> str:
        def filled(match: re.Match[str]) -> str:
            kind, *path = match[1].split(".")
            if kind == "inputs":
                return self.inputs[path[0]]
            if kind == "steps":
                return self.outputs.get(path[0], {}).get(path[2], "")
            return {"github.event.pull_request.number": "5"}[match[1]]

        return re.sub(r"\$\{\{ (.*?) \}\}", filled, text)

    def step(self, name: str, **variables: str) -> Done:
        (step,) = [step for step in steps() if step.get("name") == name]
        output = self.place / "output"
        output.write_text("")
        env = {key: self.value(value) for key, value in step.get("env", {}).items()}
        done = shell(self.place, step["run"], **{**self.variables, **env, "GITHUB_OUTPUT": str(output), **variables})
        if "id" in step:
            lines = output.read_text().splitlines()
            self.outputs[step["id"]] = dict(line.split("=", 1) for line in lines)
        return done

    def all(self, run_ends: int, check_ends: int) -> Done:
        """From the run to the verdict, which is what comes back."""
        ends = {"RUN_ENDS": str(run_ends), "CHECK_ENDS": str(check_ends)}
        assert self.step("Run", **ends).returncode == 0
        if self.inputs["baseline"] and self.outputs["run"]["directory"]:
            assert self.step("Check", **ends).returncode == 0
        told = self.step("Tell")
        assert (told.returncode, told.stderr) == (0, "")
        return self.step("Verdict")

    @property
    def comment(self) -> str:
        return (self.place / "compress-comment.md").read_text()


OLD = "runs/a b/report/check.junit.xml"
FOLDED = "<details><summary>"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a cached run, which was checked before."""
    program(tmp_path / "bin", "compress", COMPRESS)
    (tmp_path / OLD).parent.mkdir(parents=True)
    (tmp_path / OLD).write_text("of an earlier check")
    return tmp_path


def test_a_run_that_does_not_say_where_its_report_is_fails_the_action(place: Path) -> None:
    program(place / "bin", "compress", COMPRESS.replace("nreport   runs", "nelsewhere runs"))
    assert Job(place, config="compress.yaml").all(0, 0).returncode == 2


@pytest.mark.parametrize(
    ("run_ends", "check_ends", "code", "parts"),
    [
        (0, 0, 0, ["## check", FOLDED, "\n\n## report – é\n", "</details>"]),
        (0, 1, 1, ["## check", FOLDED, "\n\n## report – é\n", "</details>"]),
        (1, 0, 1, ["## check", "\n\n## report – é"]),
        (
            0,
            2,
            2,
            ["## compress check ended with exit code 2", "\n\n    error: another model\n\n", FOLDED, "## report – é"],
        ),
        (2, 0, 2, ["## compress run ended with exit code 2", "\n\n    error: no `x`.\n\n", "actions/runs/77"]),
    ],
)
def test_the_action_tells_first_and_fails_last(
    run_ends: int, check_ends: int, code: int, parts: list[str], place: Path
) -> None:
    job = Job(place, config="compress.yaml")
    verdict = job.all(run_ends, check_ends)
    assert verdict.returncode == code
    assert (f"exit code {code}" in verdict.stdout) == (code != 0)
    assert run_ends > 1 or not (place / OLD).exists()
    assert (FOLDED in job.comment) == (FOLDED in parts)
    assert "a line" not in job.comment
    places = [job.comment.index(part) for part in ["<!-- compress: compress -->", *parts]]
    assert places == sorted(places)
    assert (place / "summary").read_text() == job.comment


ANOTHER = """
if [ "$1" = run ] && [ -e runs/other ]; then
    echo "error: output 'runs/other' holds another run (geometry was 'reduced', now 'full'); give another." >&2
    exit 2
fi
"""


def test_another_run_of_the_same_name_in_the_cache_is_removed(place: Path) -> None:
    program(place / "bin", "compress", ANOTHER + COMPRESS)
    (place / "runs" / "other").mkdir()
    assert Job(place, config="compress.yaml").all(0, 0).returncode == 0
    assert not (place / "runs" / "other").exists()
    assert (place / "runs" / "a b").exists()
    (place / "runs" / "other").mkdir()
    script = "\n".join(yaml.safe_load(GITLAB.read_text())["compress"]["script"])
    ends = {"RECIPE": "digits", "IMAGES": "", "BASELINE": "baseline.json", "RUN_ENDS": "0", "CHECK_ENDS": "0"}
    assert shell(place, script, **ends).returncode == 0
    assert not (place / "runs" / "other").exists()


def test_images_get_another_date_where_one_of_them_changes_and_else_the_same(place: Path) -> None:
    files = [place / "my images" / name for name in ("a/1.npy", "b/2.npy")]
    job = Job(place, config="compress.yaml", images="my images")
    gitlab = "\n".join(yaml.safe_load(GITLAB.read_text())["compress"]["script"])
    ends = {"RECIPE": "folder", "IMAGES": "my images", "BASELINE": "b.json", "RUN_ENDS": "0", "CHECK_ENDS": "0"}
    dates = []
    for texts in ("xy", "xy", "yx"):  # at last two images of one size change places
        for ours in (True, False):
            for file, text in zip(files, texts, strict=True):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
            done = job.step("Dates") if ours else shell(place, gitlab, **ends)
            assert (done.returncode, done.stderr) == (0, "")
            (date,) = {file.stat().st_mtime for file in files}
            dates.append(date)
    assert dates[0] < 2**28
    assert len({*dates[:4]}) == 1
    assert dates[4] == dates[5] != dates[0]
    assert Job(place, config="compress.yaml", images="absent").step("Dates").returncode == 0


def test_without_a_baseline_the_gates_alone_decide(place: Path) -> None:
    job = Job(place, config="compress.yaml", baseline="")
    assert job.all(0, 1).returncode == 0
    assert "check" not in (place / "calls").read_text()


def test_inputs_stay_words(place: Path) -> None:
    evil = "a.b=$(touch evil); `touch evil`"
    job = Job(
        place, config='x" ; touch evil #', set=f"{evil}\n\nc.d=1 2", **{"check-set": evil, "name": "$(touch evil)"}
    )
    job.all(0, 0)
    assert not (place / "evil").exists()
    run, check = (place / "calls").read_text().splitlines()
    assert run == f'run --config x" ; touch evil # --set {evil} --set c.d=1 2'
    assert check == f"check runs/a b --baseline baseline.json --set {evil}"


def test_a_comment_too_long_for_github_is_cut(place: Path) -> None:
    job = Job(place, config="compress.yaml")
    job.all(0, 0)
    (place / "runs/a b/report/check.md").write_text("é" * 40_000)
    assert job.step("Tell").returncode == 0
    assert len(job.comment) < 65_536
    assert "The rest is in [the artifacts](https://github.example/owner/model/actions/runs/77)." in job.comment


@pytest.mark.parametrize(
    ("listed", "write_ends", "wanted", "warned"),
    [
        ("echo 41; echo 42", 0, "PATCH repos/owner/model/issues/comments/41", False),
        ("true", 1, "POST repos/owner/model/issues/5/comments", True),
        ("exit 1", 0, None, True),
    ],
)
def test_one_comment_is_written_over(
    listed: str, write_ends: int, wanted: str | None, warned: bool, place: Path
) -> None:
    writes = f'case "$*" in *--method*) echo "$@" >> gh-calls; exit {write_ends};; esac'
    program(place / "bin", "gh", f'{writes}\n[ "$GH_TOKEN" = "a secret" ] || exit 9\n{listed}')
    job = Job(place, config="compress.yaml", **{"token": "a secret"})
    job.all(0, 0)
    done = job.step("Comment")
    assert done.returncode == 0
    assert ("::warning::" in done.stdout) == warned
    assert "a secret" not in done.stdout + done.stderr
    calls = (place / "gh-calls").read_text() if (place / "gh-calls").exists() else ""
    body = f"body=@{place}/compress-comment.md"
    assert calls == (f"api --silent --method {wanted} -F {body}\n" if wanted else "")


@pytest.mark.parametrize(("user", "owner"), [("echo alice", "alice"), ('echo "{}"; exit 1', "")])
def test_a_person_finds_the_own_comment_by_name(user: str, owner: str, place: Path) -> None:
    listed = 'echo "[$OWNER]" >> owners'
    program(place / "bin", "gh", f'case "$*" in "api user"*) {user};; *--method*) ;; *) {listed};; esac')
    job = Job(place, config="compress.yaml", **{"token": "a secret"})
    job.all(0, 0)
    assert job.step("Comment").returncode == 0
    assert (place / "owners").read_text() == f"[{owner}]\n"


@pytest.mark.parametrize(("run_ends", "check_ends", "code"), [(0, 0, 0), (0, 1, 1), (2, 0, 2), (0, 2, 2)])
def test_the_gitlab_job_fails_last(run_ends: int, check_ends: int, code: int, place: Path) -> None:
    job = yaml.safe_load(GITLAB.read_text())["compress"]
    variables = {name: value for name, value in job["variables"].items() if name in {"BASELINE", "RECIPE", "IMAGES"}}
    script = "\n".join(job["script"])
    done = shell(place, script, **variables, RUN_ENDS=str(run_ends), CHECK_ENDS=str(check_ends))
    assert done.returncode == code
    assert [line for line in done.stderr.splitlines() if not line.startswith(("a line", "error: "))] == []
    kept = {path.name for path in (place / "compress-report").iterdir()}
    assert ("report.md" in kept) == (run_ends < 2)
    for path in job["artifacts"]["reports"]["junit"]:
        assert path.startswith("compress-report/")
    assert run_ends > 1 or "junit.xml" in kept
    assert "check.junit.xml" not in kept  # the widget would show an earlier verdict as this one's
