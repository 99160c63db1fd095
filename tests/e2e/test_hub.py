"""`compress push` and `compress pull` against a stand-in of the hub in a process of its own (tests/hub_stand_in.py)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Result
from running import ENVIRONMENT, Finished, command

TESTS = Path(__file__).parents[1]
TOKEN = "hf_right"  # noqa: S105 - the stand-in's
NAME = "acme/digits"
LOADED_ELSEWHERE = """
import sys
class Refuses:
    def find_spec(self, name, path=None, target=None):
        assert name.partition(".")[0] != "vitcompress"
sys.meta_path.insert(0, Refuses())
import numpy, onnxruntime, timm, torch
network = timm.create_model("hf-hub:acme/digits", pretrained=True).eval()
size = network.pretrained_cfg["input_size"]
images = torch.randn(4, *size, generator=torch.Generator().manual_seed(0))
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
expected = session.run(["logits"], {"images": images.numpy()})[0]
print(float(numpy.abs(network(images).detach().numpy() - expected).max()), network.pretrained_cfg["label_names"][:2])
"""

AS_TEACHER = """
from vitcompress.stages.models.origins import resolve_origin
found = resolve_origin("hf-hub:acme/digits")
print(found.arch, found.weights()[0].name, found.args["spec"]["graph"])
"""


class Hub:
    """The stand-in, and a place to ask it from."""

    def __init__(self, port: int, place: Path) -> None:
        self.url, self.place = f"http://127.0.0.1:{port}", place
        self.environment = ENVIRONMENT | {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(place / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "PYTHONPATH": str(TESTS.parent),
        }

    def ask(self, *words: str | Path, python: list[str] | None = None, **environment: str) -> Result:
        done = subprocess.run(
            python or command(*words),
            cwd=self.place,
            env=self.environment | {"HF_TOKEN": TOKEN} | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert TOKEN not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return Result(done.returncode, done.stdout, done.stderr)

    def behind(self, method: str, path: str, data: bytes | None = None) -> None:
        request = urllib.request.Request(f"{self.url}/behind/{path}", data, method=method)  # noqa: S310 - local
        urllib.request.urlopen(request).close()  # noqa: S310

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.url}/{path}") as answer:  # noqa: S310
            found: bytes = answer.read()
            return found


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    server = subprocess.Popen([sys.executable, str(TESTS / "hub_stand_in.py")], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield Hub(int(server.stdout.readline()), tmp_path_factory.mktemp("asking"))
    finally:
        server.kill()
        server.communicate()


@pytest.fixture(scope="module")
def pushed(hub: Hub, finished: Finished) -> Result:
    """A push with all that may be left out, and then the usual one, which is at ``main`` from then on."""
    everything = hub.ask("push", finished.root, NAME, "--private", "--include-judge", "--revision", "all")
    assert everything.code == 0, everything.err
    crowded = hub.ask("push", finished.root, NAME, "--include-judge")
    assert crowded.code == 0, crowded.err
    return hub.ask("push", finished.root, NAME, "--license", "mit", "--message", "as usual")


def files_at(hub: Hub, revision: str = "main") -> set[str]:
    return {row["path"] for row in json.loads(hub.get(f"api/models/{NAME}/tree/{revision}"))}


def test_a_push_sends_what_others_need_and_nothing_of_this_machine(
    hub: Hub, pushed: Result, finished: Finished
) -> None:
    assert pushed.code == 0, pushed.err
    found = files_at(hub) - {".gitattributes"}
    assert found >= {"config.json", "model.safetensors", "model.onnx", "manifest.json", "README.md", "preprocess.json"}
    assert not [path for path in found if re.search(r"judge/|engine|triton/", path)]  # nor of the push before
    dry = hub.ask("push", finished.root, NAME, "--license", "mit", "--dry-run", HF_TOKEN="", HF_HUB_OFFLINE="1")
    assert {line.split()[-1] for line in dry.out.splitlines()[:-3]} == found
    whole = hub.ask("push", finished.root, NAME, "--include-engines", "--dry-run").out
    assert "model.onnx" in whole
    assert not [name for name in ("provenance.json", "sbom.cdx.json") if name in whole]
    card = hub.get(f"{NAME}/resolve/main/README.md").decode()
    _, header, body = card.split("---\n", 2)
    data = yaml.safe_load(header)
    assert (data["library_name"], data["pipeline_tag"], data["license"]) == ("timm", "image-classification", "mit")
    rows = {one["name"]: one["value"] for one in data["model-index"][0]["results"][0]["metrics"]}
    bundled = json.loads((finished.root / "bundle" / "manifest.json").read_text())["models"]
    top1 = {row["file"]: row["facts"]["top1"] for row in bundled if row["runtime"] == "onnx"}
    assert rows == {f"top-1 %, {file}": pytest.approx(value, abs=0.01) for file, value in top1.items()}
    assert f"compress pull {NAME}" in body
    assert "%" in body
    assert not [words for words in ("Not stated", "compress verify") if words in body]


def test_what_is_pulled_is_a_bundle_that_every_command_takes(hub: Hub, pushed: Result, finished: Finished) -> None:
    assert hub.ask("pull", NAME, HF_TOKEN="").code == 0  # for everybody, into a folder of its name
    pulled = hub.place / "digits"
    assert (pulled / "model.onnx").read_bytes() == (finished.root / "bundle" / "model.onnx").read_bytes()
    image = hub.place / "one.png"
    shutil.copy(next((TESTS.parent / "docs").rglob("*.png")), image)
    answers = [hub.ask("predict", folder, image).out for folder in (pulled, finished.root / "bundle")]
    assert answers[0] == answers[1] != ""
    assert hub.ask("doctor", pulled).out.count("broken") == hub.ask("doctor", finished.root / "bundle").out.count(
        "broken"
    )
    assert hub.ask("pull", NAME, "--revision", "all", "-o", "new/whole").code == 0
    judged = hub.ask("verify", "new/whole", "--set", "verify.latency_seconds=0.1", "--set", "verify.memory=false")
    assert judged.code == 0, judged.err
    again = hub.ask("pull", NAME)
    assert (again.code, "'digits' is there already" in again.err) == (2, True)


def test_timm_alone_loads_a_folded_lift_from_the_hub(hub: Hub, pushed: Result, finished: Finished) -> None:
    graph = finished.root / "bundle" / "model.onnx"
    assert json.loads((graph.parent / "manifest.json").read_text())["facts"]["graph"] == "lift-folded"
    found = hub.ask(python=[sys.executable, "-c", LOADED_ELSEWHERE, str(graph)], PYTHONPATH="")
    assert found.code == 0, found.err
    assert float(found.out.split()[0]) < 1e-5
    assert "'0', '1'" in found.out
    teacher = hub.ask(python=[sys.executable, "-c", AS_TEACHER])
    assert teacher.code == 0, teacher.err
    assert teacher.out.split() == ["compress_student", "student.safetensors", "lift-kept"]


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (("pull", "digits"), {}, "'digits' is no name of a repository; give ORG/NAME"),
        (("pull", "../digits"), {}, "is no name of a repository"),
        (("pull", NAME), {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        (("pull", NAME), {"HF_ENDPOINT": "http://127.0.0.1:9"}, "the hub cannot be reached for 'acme/digits'"),
        (("pull", "acme/none"), {}, "the hub has no 'acme/none'"),
        (("pull", "acme/gated"), {}, "'acme/gated' is gated"),
        (("pull", NAME, "--revision", "v9"), {}, "has no branch, tag or commit 'v9'"),
        (("push", "RUN", NAME), {"HF_TOKEN": ""}, "no token of the hub is known"),
        (("push", "RUN", NAME), {"HF_TOKEN": "hf_wrong"}, "does not let you do this"),
        (("push", "RUN", NAME, "--license", "mine"), {}, 'Invalid metadata in README.md. - "license" must be one of'),
    ],
)
def test_each_refusal_is_a_sentence(
    hub: Hub, pushed: Result, finished: Finished, words: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    done = hub.ask(*(str(finished.root) if word == "RUN" else word for word in words), *_new(words), **environment)
    assert (done.code, said in done.err, done.err.count("error:")) == (2, True, 1), done.err
    assert "hf_wrong" not in done.err
    assert not (hub.place / "refused").exists()


def _new(words: tuple[str, ...]) -> tuple[str, ...]:
    return ("-o", "refused/bundle") if words[0] == "pull" else ()


def test_a_run_that_failed_its_gates_is_not_pushed(hub: Hub, run_copy: Path) -> None:
    path = run_copy / "report" / "report.json"
    report = json.loads(path.read_text())
    report["verdict"] |= {"passed": False, "word": "FAIL", "exit_code": 1, "why": "top-1 dropped"}
    path.write_text(json.dumps(report))
    refused = hub.ask("push", run_copy, "acme/failed")
    assert (refused.code, "this run failed its gates (top-1 dropped)" in refused.err) == (2, True)
    assert hub.ask("push", run_copy, "acme/failed", "--force", "--dry-run").code == 0


def _renamed(manifest: dict[str, Any]) -> None:
    manifest["files"].append({**manifest["files"][0], "path": "../escaped.txt"})


def _emptied(manifest: dict[str, Any]) -> None:
    del manifest["files"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("model.onnx", "model.onnx is damaged"),
        ("-model.onnx", "model.onnx is missing"),
        ("-manifest.json", "is no bundle of compress"),
        (_renamed, "'../escaped.txt', which is outside"),
        (_emptied, "its list of files"),
    ],
)
def test_a_damaged_repository_leaves_nothing(
    hub: Hub, pushed: Result, damage: str | Callable[[dict[str, Any]], None], said: str
) -> None:
    path = "manifest.json" if callable(damage) else damage.removeprefix("-")
    kept = hub.get(f"{NAME}/resolve/main/{path}")
    if callable(damage):
        manifest = json.loads(kept)
        damage(manifest)
        hub.behind("PUT", f"{NAME}/{path}", json.dumps(manifest).encode())
    elif damage.startswith("-"):
        hub.behind("DELETE", f"{NAME}/{path}")
    else:
        hub.behind("PUT", f"{NAME}/{path}", kept[:-1] + bytes([kept[-1] ^ 1]))
    done = hub.ask("pull", NAME, "-o", "damaged/bundle")
    hub.behind("PUT", f"{NAME}/{path}", kept)
    assert (done.code, said in done.err, done.err.count("\n")) == (2, True, 1), done.err
    assert not (hub.place / "damaged").exists()
    assert not list(hub.place.glob("**/escaped*"))
