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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact
from vitcompress.core.errors import EnvironmentLacksError, ResultError
from vitcompress.core.files import reference, write_atomic
from vitcompress.exporters.bundled import Part, graph_facts
from vitcompress.exporters.environments import environment
from vitcompress.exporters.runners.web import NO_NODE, WebRunner, has_node
from vitcompress.exporters.targets.target import Availability, BuildOptions, Target

VERSION = "1.30.0"
_SPEC = f"onnxruntime-web@{VERSION}"
_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the package's archive, base64: npm's ``dist.integrity``."""
_FILES = {
    "package/dist/ort.wasm.bundle.min.mjs": f"ort-{VERSION}.mjs",
    "package/dist/ort-wasm-simd-threaded.wasm": f"ort-{VERSION}.wasm",
}
"""What is used of the package, by its name there: a hundredth and a tenth of it; the rest is for GPUs, or not
minified. Its dependencies are within the first file."""
_ASSETS = Path(__file__).parents[1] / "web"
LARGEST = 256 << 20
"""Bytes of a model that a page can hold: coded, it is one string, for which browsers have a limit of 512 MB."""
MOST_LOST = 0.5
"""Points of top-1 (or what stands for it) that a page's model may lose against fp32."""
_LICENCE = """onnxruntime-web is Copyright (c) Microsoft Corporation, under the MIT License:
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions: The above copyright notice and
this permission notice shall be included in all copies or substantial portions of the Software. THE SOFTWARE IS PROVIDED
"AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT
HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""
USAGE = """\
`web/index.html` is a page for any current browser: open it, and drop images on it. It holds `{file}` ({why}) and all \
else that it needs, {megabytes:.1f} MB; no server, no network. In a page of your own:

```js
import * as ort from "onnxruntime-web/wasm"; // npm install {spec}
const session = await ort.InferenceSession.create("{file}");
// `input`: {words}; `globalThis.prepare` in web/index.html makes it of ImageData as `prepare` in infer.py does
const images = new ort.Tensor("{dtype}", input, {shape});
const {{ {output} }} = await session.run({{ {name}: images }});
```"""


class WebTarget(Target):
    """The graph in onnxruntime-web, and the page."""

    name = "web"
    title = "onnxruntime-web"
    page = "docs/web.md"
    precisions = ("fp32", "fp16", "int8")
    default_precisions = ("fp32",)
    suffix = ".onnx"
    runs_on = "cpu"
    note = "Measured in Node, in one thread, as in a page that is opened as a file; a GPU is not used."

    def available(self) -> Availability:
        """Look for the package's files, and for Node."""
        if not all(path.is_file() for path in _library()):
            npm = "" if shutil.which("npm") else "; it needs npm, which is not here: install Node.js with npm first"
            return Availability(
                False, f"onnxruntime-web {VERSION} is not installed; run compress target install web{npm}."
            )
        unjudged = "" if has_node() else f"; what is built cannot be measured: {NO_NODE}"
        return Availability(True, f"onnxruntime-web {VERSION} is installed{unjudged}")

    def install(self, folder: Path, say: Callable[[str], None]) -> None:
        """Get the pinned package by npm, check its SHA-512, and keep the two files of it that are used.

        Raises:
            EnvironmentLacksError: npm is missing, failed, or gave another archive.
        """
        npm = shutil.which("npm")
        if npm is None:
            raise EnvironmentLacksError("npm is not installed; install Node.js with npm, then run this again.")
        say(f"npm pack {_SPEC}")
        with tempfile.TemporaryDirectory() as place:
            done = subprocess.run(
                [npm, "pack", _SPEC, "--silent", "--pack-destination", place],
                cwd=place,
                capture_output=True,
                text=True,
                check=False,
            )
            archives = list(Path(place).glob("*.tgz"))
            if done.returncode or len(archives) != 1:
                said = " ".join((done.stderr or done.stdout).split())[:300]
                raise EnvironmentLacksError(
                    f"npm could not get {_SPEC} ({said}); check the network and npm's registry."
                )
            digest = base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode()
            if digest != _SHA512:
                raise EnvironmentLacksError(f"npm gave another {_SPEC} than the pinned one (its SHA-512 is {digest}).")
            with tarfile.open(archives[0]) as archive:
                for name, own in _FILES.items():
                    member = archive.extractfile(name)
                    assert member is not None  # noqa: S101 - the archive is the pinned one
                    write_atomic(folder / own, member.read())
        say(f"onnxruntime-web {VERSION} is in {folder}")

    def build(self, graph: OnnxArtifact, options: BuildOptions) -> EngineArtifact:
        """Take the graph as it is: onnxruntime-web optimises it when a page loads it.

        A ResultError is raised where its weights are in another file, or it takes what a browser cannot decode.
        """
        source = options.root / graph.file.path
        if graph.data is not None:
            raise ResultError("its weights are in a file of their own, which a page does not load")
        if (channels := graph_facts(source).channels) not in (1, 3):
            raise ResultError(f"it takes {channels} channels, and browsers decode images to RGB alone")
        path = options.file(graph, self.name, self.suffix)
        write_atomic(path, source.read_bytes())
        return EngineArtifact(
            status="built",
            flavour=self.name,
            precision=graph.precision,
            version=VERSION,
            file=reference(path, options.root),
            layers=graph.operators,
            opt_batch=1,
            max_batch=options.max_batch,
        )

    def open(self, path: Path, threads: int | None = None) -> WebRunner:
        """Load a graph in Node; always in one thread, for a page that no server gives has no more."""
        library, wasm = _library()
        if not self.available().yes:
            raise EnvironmentLacksError(self.available().why)
        return WebRunner(path, library, wasm)

    def add_files(self, bundle: Path, parts: Sequence[Part], labels: Sequence[str]) -> str:
        """Write ``web/index.html``; where no page can be made, say why."""
        manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        spec = json.loads((bundle / "preprocess.json").read_text(encoding="utf-8"))
        rows = [row for row in manifest["models"] if row["runtime"] == self.name]
        if spec.get("bits", 8) != 8:
            return f"There is no `web/index.html`: images of {spec['bits']} bits, and browsers decode them to 8."
        if not rows:
            return "There is no `web/index.html`: no model for onnxruntime-web is in this bundle."
        row, why = chosen(rows, bundle)
        if (size := (bundle / row["file"]).stat().st_size) > LARGEST:
            return f"There is no `web/index.html`: `{row['file']}` has {size:,} bytes, and a page holds {LARGEST:,}."
        task = manifest.get("task", "classification")
        facts = {"spec": spec, "task": task, "labels": labels, "thresholds": manifest.get("thresholds", [])}
        page = page_of(facts, row, bundle / row["file"])
        write_atomic(bundle / "web" / "index.html", page)
        made = {"file": row["file"], "why": why, "megabytes": len(page) / 1e6, "spec": _SPEC}
        images, words = row["input"], parts[0].interface.images.shape
        shape = json.dumps([1, *images["shape"][1:]])
        return USAGE.format(
            **made,
            dtype=images["dtype"],
            shape=shape,
            words=f"{images['dtype']} {list(words)}",
            name=images["name"],
            output=row["output"]["name"],
        )


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
    title = "Image embeddings" if facts["task"] == "embedding" else "Image classifier"
    measured = row["facts"]
    about = [
        ["Network", f"{row['file']}, {row['precision']}, {model.stat().st_size / 1e6:.1f} MB"],
        ["Runs with", f"onnxruntime-web {VERSION} by Microsoft (MIT licence): WebAssembly, one thread, no GPU"],
    ]
    if measured.get("top1") is not None:
        about.append(["Held-out images", f"{measured['top1']:.2f} % right, measured with this library in Node"])
    if facts["task"] != "embedding":
        about.append(["Confidences", "are the network's own and not calibrated; it names a class for any image"])
    about.append(["Preparation", "as infer.py of the bundle prepares images; JPEG files as this browser decodes them"])
    code = "\n".join([_inline(script.read_text(encoding="utf-8")), *map(_asset, ("prepare.js", "page.js"))])
    style = _asset("page.css")
    policy = f"default-src 'none'; script-src '{_hash(code)}' 'wasm-unsafe-eval'; style-src '{_hash(style)}'"
    parts = {
        "policy": f"{policy}; img-src data:; base-uri 'none'; form-action 'none'",
        "title": title,
        "style": style,
        "facts": json.dumps({**facts, "about": about}, ensure_ascii=False).replace("<", "\\u003c"),
        "wasm": _packed(wasm.read_bytes()),
        "network": _packed(model.read_bytes()),
        "script": code,
        "licence": _LICENCE,
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
