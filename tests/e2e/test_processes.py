"""Several processes on one machine, as `compress run --num-processes 2` and torchrun start them (2 of gloo, on CPU)."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import in_process
from running import ENVIRONMENT, NAMES, SHORT, TINY, Finished, as_process, command, crowded, sets
from safetensors.torch import load_file

TWO = ("--num-processes", "2")
COMPRESS = str(Path(sys.executable).with_name("compress"))
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python")
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", "--no_python")  # fmt: skip
"""Without GPUs it starts as many processes all the same; with --cpu it would start one."""
LONG = (*SHORT, "distill.epochs=400", "distill.keep_every=1")


def metrics(root: Path, training: str = "student") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["training"] == training]


def started(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=ENVIRONMENT)


def wait_for_epochs(root: Path, epochs: int, process: subprocess.Popen[str]) -> None:
    """Wait until the student was trained for so many epochs; fail where the process ends before."""
    deadline = time.monotonic() + 240
    while not ((root / "metrics.jsonl").is_file() and len(metrics(root)) >= epochs):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def alone_and_together(controlled: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of one process, and one of two that is started in a crowded folder, as the installed command starts it."""
    root = tmp_path_factory.mktemp("processes")
    words = (*controlled.arguments, "--output", root / "together", *TWO)
    result = as_process(*words, python=("-P",), cwd=crowded(root / "of a user"))
    assert result.code == 1, result.err  # a gate fails
    assert result.out.count("Deployed (>)") == 1
    assert "--num-processes 2" in json.loads((root / "together/report/report.json").read_text())["command"]
    return controlled.root, root / "together"


def test_two_processes_reach_the_weights_of_one(alone_and_together: tuple[Path, Path]) -> None:
    alone, together = alone_and_together
    assert metrics(alone)[-1]["step"] == metrics(together)[-1]["step"] == 22
    for name in ("teacher/model.safetensors", "student/model.safetensors", "control/model.safetensors"):
        one, two = load_file(alone / name), load_file(together / name)
        assert one.keys() == two.keys()
        worst = max(float((one[key] - two[key]).abs().max()) for key in one)
        assert worst <= 1e-5, f"{name}: {worst}"


def test_losses_and_accuracy_over_an_uneven_last_batch_are_those_of_one(alone_and_together: tuple[Path, Path]) -> None:
    (one,), (two,) = (metrics(root) for root in alone_and_together)
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)
    for key in ("val_top1_raw", "val_top1_ema"):
        assert two[key] == one[key]
        assert round(two[key] * 359 / 100) == pytest.approx(two[key] * 359 / 100, abs=1e-9)  # of exactly 359 images


def test_only_the_main_process_writes(alone_and_together: tuple[Path, Path]) -> None:
    def files(root: Path) -> set[str]:
        found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
        return {name for name in found if not name.startswith("checkpoints/")}

    alone, together = alone_and_together
    assert files(together) == files(alone)
    assert [line["epoch"] for line in metrics(together, "teacher")] == [1]


@pytest.mark.sweep
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate launch"])
def test_other_launchers_start_it_too(
    tmp_path: Path, alone_and_together: tuple[Path, Path], launcher: tuple[str, ...]
) -> None:
    words = ("run", *NAMES, *sets(*SHORT), "--output", str(tmp_path / "run"))
    done = subprocess.run(
        [sys.executable, "-P", "-m", *launcher, COMPRESS, *words],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=crowded(tmp_path / "of a user"),
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, two = (load_file(root / "student" / "model.safetensors") for root in (alone_and_together[1], tmp_path / "run"))
    assert all(bool((one[name] == two[name]).all()) for name in one)


@pytest.mark.sweep
def test_torchrun_starts_it_again_after_a_process_died(tmp_path: Path) -> None:
    launcher = ("-m", TORCHRUN[0], "--max-restarts", "1", *TORCHRUN[1:])
    settings = (*TINY, "teacher.epochs=1", "distill.epochs=6", "distill.checkpoint_seconds=0")
    words = (COMPRESS, "run", *NAMES, *sets(*settings), "--output", str(tmp_path / "run"))
    with started([sys.executable, *launcher, *words]) as agent:
        wait_for_epochs(tmp_path / "run", 2, agent)
        children = psutil.Process(agent.pid).children()
        next(child for child in children if child.environ().get("RANK") == "1").kill()
        _, err = agent.communicate(timeout=300)
    assert agent.returncode == 0, err
    assert "resuming student" in err
    assert [line["epoch"] for line in metrics(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


class Started:
    """A long training of two processes, past its first epochs."""

    def __init__(self, root: Path, *settings: str) -> None:
        before = len(metrics(root)) if (root / "metrics.jsonl").is_file() else 0
        arguments = command("run", *NAMES, *sets(*LONG, *settings), "--output", root, *TWO)
        self.process = started(arguments)
        try:
            wait_for_epochs(root, before + 1, self.process)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        for process in (*self.children(), self.process):
            process.kill()
        self.process.communicate(timeout=60)  # closes its pipe

    def children(self) -> list[psutil.Process]:
        """The ranks that still run."""
        if self.process.poll() is not None:
            return []
        return psutil.Process(self.process.pid).children()

    def rank(self, number: int) -> psutil.Process:
        return next(child for child in self.children() if child.environ().get("RANK") == str(number))

    def ended(self) -> tuple[int, str, float]:
        started = time.monotonic()
        _, err = self.process.communicate(timeout=90)
        return self.process.returncode, err, time.monotonic() - started


def long_training(controlled: Finished, root: Path) -> Path:
    """A run whose teacher is there, and whose student is about to be trained for long."""
    shutil.copytree(controlled.root, root)
    (root / "metrics.jsonl").unlink()  # of a short training
    return root


@pytest.fixture
def fitted(controlled: Finished, tmp_path: Path) -> Path:
    return long_training(controlled, tmp_path / "run")


@pytest.fixture(scope="module")
def stopped(controlled: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A training of two processes that SIGTERM ended in all of them and their loaders, as SLURM sends it to a job.

    With its exit code, and what it printed on stderr.
    """
    root = long_training(controlled, tmp_path_factory.mktemp("stopped") / "run")
    training = Started(root, "workers=1")
    loaders = [loader for rank in training.children() for loader in rank.children()]
    assert len(loaders) >= 2
    for process in (training.process, *training.children(), *loaders):
        process.send_signal(signal.SIGTERM)
    code, err, _ = training.ended()
    assert psutil.wait_procs(loaders, timeout=30)[1] == []
    return root, code, err


def trained_epochs(root: Path) -> list[str]:
    """Names of the snapshots of the epochs in the metrics, each of which is there once and in order."""
    epochs = [line["epoch"] for line in metrics(root)]
    assert epochs == list(range(1, len(epochs) + 1))
    return [f"epoch-{epoch:04d}.safetensors" for epoch in epochs]


def kept_epochs(root: Path) -> list[str]:
    """Every file beside the student's snapshots, hidden leftovers included."""
    return sorted(path.name for path in (root / "student" / "snapshots").glob("*/*"))


def test_stopped_in_all_processes_it_saves(stopped: tuple[Path, int, str]) -> None:
    root, code, err = stopped
    assert code == 130, err
    assert "saved at step" in err
    assert "Traceback" not in err
    assert kept_epochs(root) == trained_epochs(root)


def test_it_goes_on_and_a_process_that_dies_takes_the_run_down_and_is_named(stopped: tuple[Path, int, str]) -> None:
    root = stopped[0]
    training = Started(root)
    other = training.rank(0)
    training.rank(1).kill()
    code, err, seconds = training.ended()
    assert code == 3
    assert "rank 1 of 2 died (killed by SIGKILL" in err.splitlines()[-1]
    assert seconds < 60
    assert not other.is_running()
    assert "resuming student" in err
    epochs = trained_epochs(root)[:-1]  # it may have died while it wrote the last one
    assert kept_epochs(root)[: len(epochs)] == epochs


def test_a_process_that_is_stopped_ends_the_run_and_is_named_with_its_step(fitted: Path) -> None:
    """It closes no connection: what a dead network looks like, too."""
    training = Started(fitted, "distill.timeout_minutes=0.2")
    processes = [training.rank(number) for number in (0, 1)]
    time.sleep(2.4)  # two signs of life, which are a tenth of the patience apart: the second tells of a step
    processes[1].suspend()
    code, err, seconds = training.ended()
    assert code == 75
    (told,) = [line for line in err.splitlines() if line.startswith("rank 0: error: ")]
    assert "rank 1 " in told or "rank 1, " in told
    assert re.search(r"last seen at step \d+ of student", told)
    assert "0.2 minutes (distill.timeout_minutes)" in told
    assert 10 <= seconds < 60
    assert not any(process.is_running() for process in processes)


@pytest.mark.sweep
def test_processes_do_not_outlive_their_launcher(fitted: Path) -> None:
    training = Started(fitted)
    ranks = training.children()
    assert len(ranks) == 2
    training.process.kill()
    training.process.communicate(timeout=60)
    _, alive = psutil.wait_procs(ranks, timeout=60)
    for left in alive:
        left.kill()
    assert alive == []


def test_a_single_step_is_one_processs_work(
    alone_and_together: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = in_process("verify", alone_and_together[0])
    assert result.code == 2
    assert "`compress verify` is one process's work; start it without torchrun" in result.err


def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    settings = sets(*SHORT, "distill.batch_size=63")
    result = as_process("run", *NAMES, *settings, "--output", tmp_path / "run", *TWO)
    assert result.code == 2
    assert result.err.count("distill.batch_size is 63, which 2 processes of 1 part(s) each cannot share evenly") == 1
    assert result.err.splitlines()[-1] == "error: rank 0 of 2 ended with exit code 2; its message is above."
    assert not (tmp_path / "run").exists()
