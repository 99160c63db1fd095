"""Several machines: network namespaces stand in for them, and fakes of SLURM's commands for a cluster (CPU, gloo)."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import psutil
import pytest
from running import ENVIRONMENT, NAMES, SHORT, Finished, command, sets
from safetensors.torch import load_file

from vitcompress.pipeline.launch import free_port

CLUSTERS = Path(__file__).parents[2] / "docs" / "clusters"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
OFTEN = (*SHORT, "distill.checkpoint_seconds=0", "distill.log_every=2")
"""So that a checkpoint of the student is there in the middle of its only epoch."""


def started(words: list[str], **environment: str) -> subprocess.Popen[str]:
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, env={**ENVIRONMENT, **environment}, text=True, **streams)  # type: ignore[call-overload]


def wait_for(root: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    """Wait until the run has such a file; fail where the process ends before."""
    deadline = time.monotonic() + 1200
    while not list(root.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


CHECKPOINT = "checkpoints/student/*/step-*"


def distilled(root: Path, *processes: subprocess.Popen[str]) -> str:
    """Wait until the student is trained, and end the run there; what the first process printed on stderr."""
    wait_for(root, "records/distill.json", processes[0])
    for process in processes:
        process.terminate()
    return next(iter([process.communicate(timeout=300)[1] for process in processes]))


def connections(agent: subprocess.Popen[str]) -> set[str]:
    """The states of its own TCP connections, without those of its children."""
    return {one.status for one in psutil.Process(agent.pid).net_connections("tcp")}


def differences(one: Path, other: Path) -> list[float]:
    """The largest difference of any weight, of the teacher and of the student."""
    found = []
    for name in ("teacher", "student"):
        first, second = (load_file(root / name / "model.safetensors") for root in (one, other))
        found.append(max(float((first[key] - second[key]).abs().max()) for key in first))
    return found


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, str]]:
    """Two machines by address, as namespaces with a cable between them."""
    found = {f"vc{os.getpid()}{which}": f"10.91.7.{at}" for at, which in enumerate("ab", 1)}

    def ip(words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(shutil.which("ip")), *words.split()], capture_output=True, text=True, check=False)

    try:
        one, other = found
        for words in (f"netns add {one}", f"netns add {other}", f"link add {one}v type veth peer name {other}v"):
            if not shutil.which("ip") or (done := ip(words)).returncode:
                pytest.skip(f"ip {words}: {done.stderr.strip() if shutil.which('ip') else 'not installed'}")
        for name, address in found.items():
            assert ip(f"link set {name}v netns {name}").returncode == 0
            for words in (f"addr add {address}/24 dev {name}v", f"link set {name}v up", "link set lo up"):
                assert ip(f"-n {name} {words}").returncode == 0
        yield found
    finally:
        for name in found:
            ip(f"netns del {name}")


def on_nodes(nodes: dict[str, str], output: Path, own_disk: Path | None = None) -> list[subprocess.Popen[str]]:
    """The documented command on each node; the second one has a disk of its own there, if it is to."""
    processes = []
    for rank, (name, address) in enumerate(nodes.items()):
        meeting = (f"--master-addr={next(iter(nodes.values()))}", "--master-port=29500", f"--local-addr={address}")
        torchrun = (*TORCHRUN, "--nnodes=2", "--nproc-per-node=1", f"--node-rank={rank}", *meeting, "-m", "vitcompress")
        mounted = ("sh", "-c", f'mount -t tmpfs none "{own_disk}" && exec "$@"', "sh") if own_disk and rank else ()
        words = ["ip", "netns", "exec", name, *mounted, *torchrun, "run", *NAMES, *sets(*SHORT)]
        processes.append(started([*words, "--output", str(output)], GLOO_SOCKET_IFNAME=f"{name}v"))
    return processes


def test_two_machines_reach_the_weights_of_one(nodes: dict[str, str], controlled: Finished, tmp_path: Path) -> None:
    """Bit by bit those of one machine with two processes, and to 1e-5 those of one process."""
    distilled(tmp_path / "run", *on_nodes(nodes, tmp_path / "run"))
    here = command("run", *NAMES, *sets(*SHORT), "--output", tmp_path / "together", "--num-processes", "2")
    distilled(tmp_path / "together", started(here))
    assert differences(tmp_path / "run", tmp_path / "together") == [0.0, 0.0]
    assert max(differences(tmp_path / "run", controlled.root)) <= 1e-5


def test_machines_without_a_common_disk_are_refused(nodes: dict[str, str], tmp_path: Path) -> None:
    main, other = on_nodes(nodes, tmp_path / "run", own_disk=tmp_path)
    err = other.communicate(timeout=900)[1]
    main.communicate(timeout=900)
    assert min(main.returncode, other.returncode) > 0
    assert re.search(r"rank 1: error: '.*' on machine .* is not the run of the main process; give an --output", err), (
        err
    )


@pytest.mark.slow  # torchrun waits for 40 seconds
def test_a_machine_that_is_lost_leaves_the_training_to_the_other(controlled: Finished, tmp_path: Path) -> None:
    """`torchrun --nnodes=1:2` goes on from the last checkpoint, with one process in place of two."""
    words = [*TORCHRUN, "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-backend=c10d",
             f"--rdzv-endpoint=localhost:{free_port()}", "--rdzv-conf=last_call_timeout=40", "-m", "vitcompress",
             "run", *NAMES, *sets(*OFTEN), "--output", str(tmp_path / "run")]  # fmt: skip
    agents = [started(words, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1") for _ in range(2)]
    wait_for(tmp_path / "run", CHECKPOINT, agents[0])
    # The one that holds the store by which they meet cannot be lost.
    stays, lost = sorted(agents, key=lambda agent: "LISTEN" not in connections(agent))
    assert "LISTEN" in connections(stays)
    assert "LISTEN" not in connections(lost)
    for process in (psutil.Process(lost.pid), *psutil.Process(lost.pid).children()):
        process.kill()
    assert "resuming student" in distilled(tmp_path / "run", stays)
    lost.communicate(timeout=60)
    assert max(differences(tmp_path / "run", controlled.root)) <= 1e-5


SRUN = """
    #!{python}
    import os, signal, subprocess, sys
    words = sys.argv[1:]
    while words[0].startswith("--"):
        del words[0]
    tasks = [
        subprocess.Popen(words, env={{**os.environ, "SLURM_PROCID": str(at), "SLURM_LOCALID": str(at),
                                      "SLURM_NTASKS": "2"}}, start_new_session=True)
        for at in range(2)
    ]
    signal.signal(signal.SIGUSR1, lambda *given: [os.killpg(task.pid, signal.SIGUSR1) for task in tasks])
    sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = """
    #!/bin/bash
    if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> {log}; fi
"""
COMPRESS = """
    #!/bin/bash
    exec {python} -m vitcompress "$@"
"""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a SLURM job, with fakes of its commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "compress": COMPRESS}.items():
        (folder / name).write_text(dedent(text).lstrip().format(python=sys.executable, log=tmp_path / "scontrol.log"))
        (folder / name).chmod(0o755)
    job = {"JOB_ID": "77", "JOB_NODELIST": "n[1-2]", "ARRAY_JOB_ID": "70", "ARRAY_TASK_ID": "3", "GPUS_ON_NODE": "2"}
    return {"PATH": f"{folder}:{os.environ['PATH']}", **{f"SLURM_{name}": value for name, value in job.items()}}


def test_a_job_of_an_array_is_requeued_by_sigusr1_and_goes_on(
    slurm: dict[str, str], controlled: Finished, tmp_path: Path
) -> None:
    """Signals reach every process of a task's group: `srun` sends them to loaders too."""
    words = ["bash", str(CLUSTERS / "slurm-nodes.sbatch"), *NAMES, *sets(*OFTEN, "workers=1")]
    words += ["--output", str(tmp_path / "run-%a")]
    job = started(words, **slurm)
    wait_for(tmp_path / "run-3", CHECKPOINT, job)
    job.send_signal(signal.SIGUSR1)
    err = job.communicate(timeout=900)[1]
    assert job.returncode == 85, err
    assert "saved at step" in err
    assert (tmp_path / "scontrol.log").read_text() == "requeue 70_3\n"
    again = started(words, **slurm)
    wait_for(tmp_path / "run-3", "records/distill.json", again)
    again.send_signal(signal.SIGUSR1)  # outside of a training
    err = again.communicate(timeout=900)[1]
    assert again.returncode == 85, err
    assert "resuming student" in err
    assert max(differences(tmp_path / "run-3", controlled.root)) <= 1e-5


def test_a_job_of_one_machine_takes_the_place_of_its_shell(slurm: dict[str, str], tmp_path: Path) -> None:
    """`--signal=B:` reaches the batch shell alone."""
    (tmp_path / "bin" / "compress").write_text('#!/bin/bash\necho $$ "$@"\n')
    words = ["bash", str(CLUSTERS / "slurm.sbatch"), "--data", "a b", "--output", "runs/x-%a"]
    process = subprocess.Popen(words, env={**ENVIRONMENT, **slurm}, stdout=subprocess.PIPE, text=True)
    out = process.communicate(timeout=60)[0]
    assert out.split(maxsplit=1) == [
        str(process.pid), "run --data a b --output runs/x-3 --num-processes 2 --set requeue=true\n"
    ]  # fmt: skip
