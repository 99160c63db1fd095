"""The files of docs/clusters have the fields that SLURM, Kubernetes, JobSet and SkyPilot document, and work together."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

CLUSTERS = Path(__file__).parents[1] / "docs" / "clusters"
SBATCH = {"job-name", "nodes", "ntasks", "ntasks-per-node", "gpus", "gpus-per-node", "cpus-per-task", "mem", "time"} | {
    "signal", "requeue", "open-mode"
}  # fmt: skip
FIELDS = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {"failurePolicy", "replicatedJobs", "network", "successPolicy", "startupPolicy", "suspend"},
    "spec.failurePolicy": {"maxRestarts", "rules", "restartStrategy"},
    "spec.failurePolicy.rules.0": {"name", "action", "onJobFailureReasons", "targetReplicatedJobs"},
    "spec.replicatedJobs.0": {"name", "replicas", "template", "dependsOn", "groupName"},
    "spec.replicatedJobs.0.template.spec": {"parallelism", "completions", "completionMode", "backoffLimit"}
    | {"podFailurePolicy", "template", "activeDeadlineSeconds", "ttlSecondsAfterFinished"},
    "spec.replicatedJobs.0.template.spec.template.spec": {"restartPolicy", "terminationGracePeriodSeconds"}
    | {"containers", "volumes", "nodeSelector", "tolerations", "priorityClassName"},
    "spec.replicatedJobs.0.template.spec.template.spec.containers.0": {"name", "image", "env", "command", "args"}
    | {"ports", "resources", "volumeMounts"},
}
SKY = {"name", "workdir", "num_nodes", "resources", "envs", "secrets", "file_mounts", "setup", "run", "config"}
SKY_RESOURCES = {"infra", "accelerators", "cpus", "memory", "use_spot", "disk_size", "disk_tier", "image_id"} | {
    "job_recovery", "any_of", "ordered", "ports", "labels", "network_tier"
}  # fmt: skip


def at(value: Any, path: str) -> Any:
    for part in filter(None, path.split(".")):
        value = value[int(part) if part.isdecimal() else part]
    return value


def checked(script: str) -> None:
    """Whether bash can read it."""
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", sorted(CLUSTERS.glob("*.sbatch")), ids=lambda path: path.name)
def test_a_batch_file_asks_for_a_signal_in_time_and_may_be_requeued(path: Path) -> None:
    text = path.read_text()
    checked(text)
    head, _, body = text.partition("\nset -eu\n")
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", head, re.MULTILINE))
    assert asked.keys() <= SBATCH
    assert re.fullmatch(r"(B:)?USR1@(\d{3,})", asked["signal"])
    assert "requeue" in asked and asked["open-mode"] == "append"
    assert "#SBATCH" not in body  # which SLURM reads only before the first command
    assert "--set requeue=true" in body


def test_the_jobset_has_documented_fields_and_its_parts_fit_together() -> None:
    found = yaml.safe_load((CLUSTERS / "jobset.yaml").read_text())
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    for path, fields in FIELDS.items():
        assert at(found, path).keys() <= fields, path
    job = at(found, "spec.replicatedJobs.0")
    spec = job["template"]["spec"]
    pod, (container,) = spec["template"]["spec"], spec["template"]["spec"]["containers"]
    assert pod["restartPolicy"] == "Never"  # which podFailurePolicy needs
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]
    env = {one["name"]: one["value"] for one in container["env"]}
    assert int(env["NODES"]) == spec["completions"] == spec["parallelism"]
    assert int(env["GPUS"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert env["MASTER"] == f"{found['metadata']['name']}-{job['name']}-0-0.{found['metadata']['name']}"
    mounted = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert mounted.keys() == volumes.keys()
    assert volumes[next(name for name, path in mounted.items() if path == "/dev/shm")]["emptyDir"]["medium"] == "Memory"


@pytest.mark.parametrize(("ends_with", "report", "code"), [(0, True, 0), (1, False, 1), (1, True, 42)])
def test_a_pod_says_whether_to_start_again(tmp_path: Path, ends_with: int, report: bool, code: int) -> None:
    found = yaml.safe_load((CLUSTERS / "jobset.yaml").read_text())
    container = at(found, "spec.replicatedJobs.0.template.spec.template.spec.containers.0")
    (script,) = container["args"]
    checked(script)
    if report:
        (tmp_path / "report").mkdir()
        (tmp_path / "report" / "report.json").touch()
    given = {one["name"]: one["value"] for one in container["env"]} | {
        "RUN": str(tmp_path),
        "JOB_COMPLETION_INDEX": "1",
    }
    torchrun = f'torchrun() {{ [[ "$*" == "--nnodes 2 --node-rank 1 "* ]] || return 9; return {ends_with}; }}\n'
    done = subprocess.run(
        [*container["command"], torchrun + script], env={"PATH": "/bin:/usr/bin", **given}, check=False
    )
    assert done.returncode == code


def test_the_skypilot_task_has_documented_fields_and_keeps_the_run_in_the_bucket() -> None:
    found = yaml.safe_load((CLUSTERS / "skypilot.yaml").read_text())
    assert found.keys() <= SKY
    assert found["resources"].keys() <= SKY_RESOURCES
    for script in (found["setup"], found["run"]):
        checked(script)
    assert '--mirror "s3://$BUCKET/' in found["run"]
    assert {*re.findall(r"\$([A-Z_]+)", found["run"])} - found["envs"].keys() == {"SKYPILOT_NUM_GPUS_PER_NODE"}
