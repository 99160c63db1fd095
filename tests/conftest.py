"""What tests of every folder share: handwritten digits as a folder of PNG files, and a stage's surroundings."""

from __future__ import annotations

import functools
import gc
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from rich.console import Console
from sklearn.datasets import load_digits

from vitcompress.core.context import Context
from vitcompress.core.rundir import RunDirectory

HERE = Path(__file__).parent

# Before torch is imported: networks this small gain nothing from threads, which on a busy machine wait for each other
# (measured: 10 times slower with 2 threads on 2 occupied cores).
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How fast values are drawn depends on what else the machine does, and is nothing that these tests are about.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


FIRST = "test_processes.py"
"""It needs no run that another file makes too, and takes longest."""
LONGEST_FIRST = ("e2e", "benchmarks", "stages", "exporters", "pipeline", "core")
"""Folders of tests by how long one of their files takes: with a short one last, no process waits for another's."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files; what is in a file keeps its order."""

    def rank(item: pytest.Item) -> tuple[bool, int]:
        folder = item.path.relative_to(HERE).parts[0]
        place = LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)
        return item.path.name != FIRST, place

    items.sort(key=rank)


@pytest.fixture(scope="session", autouse=True)
def _offline() -> Iterator[None]:
    """Nobody asks the Hugging Face hub what it has: an answer takes seconds, and no test depends on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.is_offline_mode", lambda: True)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_table_of_operators() -> Iterator[None]:
    """torch lists ONNX's operators anew for every graph: a second of the four that one of two blocks takes."""
    if "torch" not in sys.modules:  # of what was collected nothing needs it
        yield
        return
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture(scope="module", autouse=True)
def _cheap_collections() -> None:
    """Set aside what is there already: trainings and timings collect garbage often, 0.8 s each in a long session."""
    gc.collect()  # of what came since the last module alone
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say below the last line what was not run, and how to run it."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput") or config.option.collectonly:
        return
    skipped = [str(report.longrepr) for report in reporter.stats.get("skipped", ())]
    browser = sum("browser" in reason or "Chromium" in reason for reason in skipped)
    marks = config.option.markexpr or ""
    left = ["sweeps and slow paths (make test-all)"] if "not slow" in marks else []
    left += ["GPU paths (make test-gpu)"] if "not gpu" in marks else []
    left += [f"{browser} tests of report.html in a browser (make browser, as root)"] if browser else []
    others = len(skipped) - browser
    left += [f"{others} for the reasons above"] if others else []
    if left:
        reporter.write_line(f"not run: {', '.join(left)}")


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of 10 classes: train/ with 8 images each, val/ with 3. Not to be changed; copy it for that."""
    from vitcompress.stages.images.sources.digits import digit_image

    root = tmp_path_factory.mktemp("digits-folder")
    digits = load_digits()
    for label in range(10):
        first = digits.images[digits.target == label][:11]
        for split, images in (("train", first[:8]), ("val", first[8:])):
            folder = root / split / f"digit-{label}"
            folder.mkdir(parents=True)
            for number, pixels in enumerate(images):
                digit_image(pixels).save(folder / f"{number:03d}.png")
    return root


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an S3 service of this machine, in a process of its own."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("w") as file:
        words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        server = subprocess.Popen(words, stdout=file, stderr=file)
        try:
            deadline = time.monotonic() + 120
            while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield found.group()
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket, and the environment by which it is reached, of child processes too."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{time.monotonic_ns()}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A stage's surroundings in a fresh run directory; what it says can be read from ``context.console.file``."""
    run = RunDirectory.claim(tmp_path / "run", {"test": True})
    return Context(run=run, seed=0, device="cpu", fingerprint="f" * 64, console=Console(file=io.StringIO(), width=500))
