"""A run's bundle onto the Hugging Face hub, in one commit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from vitcompress.core.errors import UsageError
from vitcompress.core.record import FileRef, Record
from vitcompress.exporters.bundle import open_bundle, open_judge
from vitcompress.exporters.bundle.judge import USAGE
from vitcompress.exporters.bundle.layout import (
    INFER,
    JUDGE,
    LABELS,
    MANIFEST,
    PREPROCESS,
    PROVENANCE,
    README,
    SBOM,
    is_ours,
)
from vitcompress.pipeline.api.arguments import PathLike
from vitcompress.pipeline.api.runs import Run, folder_of
from vitcompress.pipeline.hub.access import asking, checked
from vitcompress.pipeline.hub.card import hub_card

_USUAL = "main"
_ROOT = "timm/"
"""Its files lie at the top of the repository too, where timm and this program look for them."""

_TABLE = "\n## Accuracy and latency\n"
_LEFT_OUT = "\nWhat other targets than `onnx` built is not here; build it from `model.onnx` for your machine.\n"


class Pushed(Record):
    """What :func:`vitcompress.push` sent, or would send."""

    name: str
    """``ORG/NAME``."""
    revision: str
    """The branch."""
    commit: str | None
    """None of a dry run."""
    url: str
    files: tuple[FileRef, ...]
    """By their paths in the repository."""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files)


def push(
    run: Run | PathLike,
    name: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    license: str | None = None,
    include_engines: bool = False,
    include_judge: bool = False,
    force: bool = False,
    dry_run: bool = False,
    progress: bool = True,
) -> Pushed:
    """Upload a finished run's bundle to the Hugging Face hub, in one commit: `compress push`.

    The student as timm alone (or torch alone) loads it, ONNX files, preprocessing, labels, a manifest with the SHA-256
    of each, and the model card. Files of an earlier push that are none of these any more go.

    Args:
        run: or its folder.
        name: ``ORG/NAME``; the repository is made where there is none.
        private: whether a repository that is made is private.
        revision: the branch, made where there is none; None for ``main``.
        message: of the commit.
        license: for the card, such as ``apache-2.0``; the teacher's and the data's licences bind it.
        include_engines: whether to send what other targets than ONNX built too.
        include_judge: whether to send what measuring it on another machine needs: the teacher's graphs, names of the
            held-out images and, where the bundle has them, the images.
        force: though the run failed its gates.
        dry_run: whether to say what would be sent, and ask the hub nothing.
        progress: whether to show bars on a terminal.

    Raises:
        UsageError: the run failed its gates, the hub refuses, or cannot be reached.
        BundleError: the bundle is damaged.
    """
    found, branch = Run(folder_of(run)), revision or _USUAL
    checked(name)
    if not found.verdict.passed and not force:
        raise UsageError(f"this run failed its gates ({found.verdict.why}); mend the run, or add --force.")
    content = _content(found, name, branch, license, include_engines, include_judge)
    references = tuple(_reference(path, one) for path, one in sorted(content.items()))
    if dry_run:
        return Pushed(name=name, revision=branch, commit=None, url=_url(name), files=references)
    import huggingface_hub as hub

    with asking(name, branch, progress):
        if hub.get_token() is None:
            raise UsageError("no token of the hub is known; log in (hf auth login), or set HF_TOKEN.")
        api = hub.HfApi(library_name="vitcompress")
        api.create_repo(name, private=private or None, exist_ok=True)
        if branch != _USUAL:
            api.create_branch(name, branch=branch, exist_ok=True)
        there = api.list_repo_files(name, revision=branch)
        ours = {path for path in there if is_ours(path) or is_ours(f"{_ROOT}{path}")}
        operations: list[Any] = [hub.CommitOperationDelete(path) for path in sorted(ours - content.keys())]
        operations += [hub.CommitOperationAdd(path, one) for path, one in sorted(content.items())]
        words = message or f"{found.report['headline']['student']} of compress"
        made = api.create_commit(name, operations, commit_message=words, revision=branch)
    return Pushed(name=name, revision=branch, commit=made.oid, url=_url(name), files=references)


def _content(
    run: Run, name: str, branch: str, license: str | None, engines: bool, judge: bool
) -> dict[str, Path | bytes]:
    """Return what is sent by its path in the repository, after every checksum of the bundle was found right.

    A UsageError is raised where ``judge`` is asked for and the bundle has none.
    """
    root = run.folder / "bundle"
    bundle = open_bundle(root)
    manifest = dict(bundle.manifest)
    graphs = {model.path.name for model in bundle.models if model.runtime == "onnx"}
    usual = {*graphs, PREPROCESS, LABELS, INFER}
    # Provenance and bill of materials are of the bundle as it is here, with this machine's paths and another README.
    names = [entry["path"] for entry in manifest["files"] if entry["path"] not in (README, PROVENANCE, SBOM)]
    names = [one for one in names if engines or one in usual or one.startswith((_ROOT, "torch/"))]
    if not engines:
        manifest["models"] = [row for row in manifest["models"] if row["file"] in graphs]
        manifest["default"] = {"onnx": manifest["default"]["onnx"]}
    content: dict[str, Path | bytes] = {one: root / one for one in names}
    config = root / _ROOT / "config.json"
    stock = config.is_file() and json.loads(config.read_bytes())["architecture"] != "compress_student"
    at = "" if branch == _USUAL else f"@{branch}"
    body = _without_home((root / README).read_text(encoding="utf-8"))
    body = body if judge else body.replace(f"{USAGE}\n\n", "")
    body = body.replace(_TABLE, f"{_LEFT_OUT}{_TABLE}") if len(bundle.models) > len(manifest["models"]) else body
    content[README] = hub_card(run.report, manifest, body, name, license, stock, at).encode()
    manifest["files"] = [_reference(path, one).model_dump() for path, one in sorted(content.items())]
    opened = open_judge(bundle) if judge else None
    if opened is not None:
        content |= {f"{JUDGE}/{one}": root / JUDGE / one for one in (*opened.files, MANIFEST)}
    elif judge:
        raise UsageError(f"'{root}' has no {JUDGE}/ to send; leave --include-judge out, or export without --slim.")
    else:
        manifest.pop("judge", None)
    content[MANIFEST] = (_without_home(json.dumps(manifest, indent=2, allow_nan=False)) + "\n").encode()
    return content | {one.removeprefix(_ROOT): root / one for one in names if one.startswith(_ROOT)}


def _without_home(text: str) -> str:
    """Return a text in which paths below the user's own folder do not tell its name."""
    return text.replace(f"{Path.home().as_posix()}/", "~/") if Path.home().name else text


def _reference(path: str, content: Path | bytes) -> FileRef:
    data = content if isinstance(content, bytes) else content.read_bytes()
    return FileRef(path=path, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def _url(name: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{name}"
