"""The files of docs/clusters: what bash reads of them, and that their parts fit together."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

CLUSTERS = Path(__file__).parents[1] / "docs" / "clusters"
BASH = "/bin/bash"


@pytest.mark.parametrize("path", sorted(CLUSTERS.glob("*.sbatch")), ids=lambda path: path.name)
def test_a_batch_file_asks_for_a_signal_in_time_and_may_be_requeued(path: Path) -> None:
    head, _, body = path.read_text().partition("\nset -eu\n")
    assert subprocess.run([BASH, "-n", str(path)], check=False).returncode == 0
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", head, re.MULTILINE))
    assert re.fullmatch(r"(B:)?USR1@\d{3,}", asked["signal"])
    assert (asked["requeue"], asked["open-mode"]) == ("", "append")
    assert "#SBATCH" not in body  # which SLURM reads only before the first command


@pytest.mark.parametrize(("ends_with", "report", "code"), [(0, True, 0), (1, False, 1), (1, True, 42)])
def test_pods_of_a_jobset_find_each_other_and_say_whether_to_start_again(
    tmp_path: Path, ends_with: int, report: bool, code: int
) -> None:
    found = yaml.safe_load((CLUSTERS / "jobset.yaml").read_text())
    (job,) = found["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod, (container,) = spec["template"]["spec"], spec["template"]["spec"]["containers"]
    env = {one["name"]: one["value"] for one in container["env"]}
    assert int(env["NODES"]) == spec["completions"] == spec["parallelism"]
    assert int(env["GPUS"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert env["MASTER"] == f"{found['metadata']['name']}-{job['name']}-0-0.{found['metadata']['name']}"
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [42]
    (tmp_path / "report").mkdir()
    if report:
        (tmp_path / "report" / "report.json").touch()
    fake = f'torchrun() {{ [[ "$*" == "--nnodes 2 --node-rank 1 "* ]] || return 9; return {ends_with}; }}\n'
    given = {"PATH": "/bin:/usr/bin", **env, "RUN": str(tmp_path), "JOB_COMPLETION_INDEX": "1"}
    assert subprocess.run([BASH, "-c", fake + container["args"][0]], env=given, check=False).returncode == code


def test_a_spot_machine_keeps_its_run_in_the_bucket() -> None:
    found = yaml.safe_load((CLUSTERS / "skypilot.yaml").read_text())
    for script in (found["setup"], found["run"]):
        assert subprocess.run([BASH, "-n", "-c", script], check=False).returncode == 0
    assert '--mirror "s3://$BUCKET/' in found["run"]
    assert {*re.findall(r"\$([A-Z_]+)", found["run"])} - found["envs"].keys() == {"SKYPILOT_NUM_GPUS_PER_NODE"}
