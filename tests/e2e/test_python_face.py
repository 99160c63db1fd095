"""`import vitcompress`: what it costs, and that every example of its docstrings gives what it says."""

from __future__ import annotations

import doctest
import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import WHOLE, Finished

import vitcompress as vc
from vitcompress.pipeline.config import parse_sets

NAME = "cait_s24-deit_tiny-lift-digits"
GATE = ("gates.max_size_mb", 5)
HOMES = {f"vitcompress.pipeline.api.{name}" for name in ("arguments", "baselines", "bundle", "runs", "verifying")}
OF_RUNS = [name for name in vc.__all__ if getattr(vc, name).__module__ in HOMES]
"""The others are of networks (tests/pipeline/api), or errors."""
WITH_EXAMPLES = [name for name in OF_RUNS if ">>>" in (inspect.getdoc(getattr(vc, name)) or "")]


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); import vitcompress\n"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['vitcompress']\n"


def test_classifying_with_a_bundle_imports_no_torch(finished: Finished) -> None:
    code = f"import sys, vitcompress as vc; vc.Bundle({str(finished.root / 'bundle')!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_name_is_there_and_explained() -> None:
    assert set(vc.__all__) <= set(dir(vc))
    assert [name for name in vc.__all__ if not inspect.getdoc(getattr(vc, name))] == []
    with pytest.raises(AttributeError, match="no attribute 'rnu'"):
        vc.rnu  # noqa: B018 - read for its error


def test_every_function_and_class_of_runs_has_an_example() -> None:
    assert set(OF_RUNS) - set(WITH_EXAMPLES) == {"Analysis", "Comparison", "Verified"}  # what functions give


@pytest.fixture(scope="module")
def judged(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the finished run under its usual name, one gate, its settings and a baseline."""
    folder = tmp_path_factory.mktemp("judged")
    shutil.copytree(finished.root, folder / "runs" / NAME)
    vc.verify(folder / "runs" / NAME, settings={GATE[0]: GATE[1]}, progress=False)
    (folder / "quick.yaml").write_text(yaml.safe_dump(parse_sets([*WHOLE, f"{GATE[0]}={GATE[1]}"])))
    vc.update_baseline(folder / "runs" / NAME, folder / "baseline.json")
    return folder


@pytest.fixture
def place(judged: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed at will."""
    return Path(shutil.copytree(judged, tmp_path / "place"))


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_an_example_gives_what_it_says(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    tests = doctest.DocTestFinder(recurse=False).find(getattr(vc, name), name, globs={"vc": vc})
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    told: list[str] = []
    for test in tests:
        runner.run(test, out=told.append)
    assert runner.summarize(verbose=False).attempted > 0
    assert not told, "".join(told)


def test_a_run_that_is_there_is_reused_and_readable(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    before = (place / "runs" / NAME / "records" / "distill.json").stat().st_mtime_ns
    run = vc.run("cait_s24", "deit_tiny", strategy="lift", config=["digits", "quick.yaml"], progress=False)
    assert (place / "runs" / NAME / "records" / "distill.json").stat().st_mtime_ns == before
    assert run.verdict.exit_code == 0
    assert run.config["distill"]["epochs"] == 2
    assert run.record("distill").epochs == 2  # type: ignore[attr-defined]
    assert run.page.is_file()
    assert "student" in str(run) or "lift-folded" in str(run)
    assert repr(run).startswith(f"Run('runs/{NAME}'): {run.verdict.word}")


def test_two_processes_carry_out_a_run_from_python(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That they train is tests/e2e/test_processes.py's, by the command, which calls this."""
    monkeypatch.chdir(place)
    trained = (place / "runs" / NAME / "records" / "distill.json").stat().st_mtime_ns
    settings = ["gates.max_size_mb=6"]  # another limit: judged again
    run = vc.run("cait_s24", "deit_tiny", config=["digits", "quick.yaml"], settings=settings, num_processes=2)
    assert (run.verdict.word, run.config["gates"]["max_size_mb"]) == ("PASS", 6)
    assert run.report["command"] == f"vitcompress.run(output='runs/{NAME}')"
    assert (place / "runs" / NAME / "records" / "distill.json").stat().st_mtime_ns == trained


def test_predictions_of_paths_and_of_one_path(finished: Finished, digits_folder: Path) -> None:
    bundle = vc.Bundle(finished.root / "bundle")
    images = sorted(digits_folder.rglob("*.png"))[:3]
    several = bundle.predict(images, top=2)
    assert [one.path for one in several] == images
    assert bundle.predict(os.fspath(images[0]), top=2) == several[:1]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: vc.run("cait_s24", "deit_tiny", settings={"distill.epoch": 3}), "unknown key 'distill.epoch'"),
        (lambda: vc.run("cait_s24", "deit_tiny", settings={"distill.lr": object()}), "that is not text, number"),
        (lambda: vc.Run("nowhere"), "nowhere"),
        (lambda: vc.check("nowhere", "baseline.json"), "nowhere"),
    ],
    ids=["unknown setting", "no value", "no run", "nothing to check"],
)
def test_a_mistake_is_one_sentence(call: Any, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(vc.CompressError) as caught:
        call()
    assert sentence in str(caught.value)
    assert list(tmp_path.iterdir()) == []
