"""A bundle from the Hugging Face hub, whole and as it was written, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from vitcompress.core.errors import BundleError, UsageError
from vitcompress.core.files import absent_folders, inside, remove_empty, writing
from vitcompress.core.record import Record
from vitcompress.exporters.bundle import open_bundle, open_judge
from vitcompress.exporters.bundle.layout import JUDGE, MANIFEST
from vitcompress.exporters.bundle.read import judge_manifest, read_manifest
from vitcompress.pipeline.api.arguments import PathLike
from vitcompress.pipeline.hub.access import PATIENCE, asking, checked


class Pulled(Record):
    """What :func:`vitcompress.pull` fetched."""

    name: str
    """``ORG/NAME``."""
    commit: str
    folder: str
    """Of the bundle."""
    files: int
    models: tuple[str, ...]
    """Names for ``model`` of :meth:`vitcompress.Bundle.predict`."""


def pull(name: str, output: PathLike | None = None, *, revision: str | None = None, progress: bool = True) -> Pulled:
    """Fetch a bundle from the Hugging Face hub and check every file against its manifest: `compress pull`.

    Args:
        name: ``ORG/NAME``.
        output: a folder that does not exist or is empty; None for ``NAME``.
        revision: a branch, tag or commit; None for ``main``.
        progress: whether to show bars on a terminal.

    Raises:
        UsageError: the hub has no such bundle, refuses or cannot be reached, or there is something in the folder.
        BundleError: a file is missing or not as it was written; then there is no folder.
    """
    checked(name)
    folder = Path(name.partition("/")[2] if output is None else output)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"'{folder}' is there already; give a new folder with --output.")
    made = absent_folders(folder.absolute().parent)
    with writing(f"bundle '{folder}'"):
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.absolute().parent, prefix=f".{folder.name}."))
    try:
        commit = _fetch(name, revision, draft, progress)
        shutil.rmtree(draft / ".cache", ignore_errors=True)  # of huggingface_hub
        bundle = open_bundle(draft)
        judge = open_judge(bundle)
        files = len(bundle.manifest["files"]) + (len(judge.files) if judge else 0)
        draft.chmod(0o755)  # mkdtemp makes 0700; a bundle is meant to be read by others
        if folder.exists():  # and stays: a shell may stand in it, or a link lead there
            for path in sorted(draft.iterdir(), key=lambda path: path.name == MANIFEST):
                path.rename(folder / path.name)
        else:
            draft.rename(folder)
    except BundleError as error:
        raise BundleError(f"'{name}' on the hub: {str(error).replace(f'{draft}/', '')}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if not folder.exists():
            remove_empty(made)
    models = tuple(model.name for model in bundle.models)
    return Pulled(name=name, commit=commit, folder=str(folder), files=files, models=models)


def _fetch(name: str, revision: str | None, draft: Path, progress: bool) -> str:
    """Download the manifest and what it lists, all of one commit, into ``draft``; return the commit."""
    import huggingface_hub as hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with asking(name, revision, progress):
        commit = str(hub.HfApi(library_name="vitcompress").model_info(name, revision=revision, timeout=PATIENCE).sha)

        def fetch(path: str, listed: bool = True) -> None:
            try:
                inside(draft, path)
            except UsageError as error:
                raise BundleError(f"{MANIFEST} names '{path}', which is outside the bundle.") from error
            try:
                hub.hf_hub_download(name, path, revision=commit, local_dir=draft)
            except EntryNotFoundError as error:
                if isinstance(error, LocalEntryNotFoundError):  # the connection broke
                    raise
                if listed:
                    raise BundleError(f"{path} is missing, which its manifest lists; push it again.") from error
                raise UsageError(f"'{name}' is no bundle of compress: it has no {MANIFEST}.") from error

        fetch(MANIFEST, listed=False)
        manifest = read_manifest(draft)
        for path in _listed(manifest):
            fetch(path)
        if "judge" in manifest:
            fetch(f"{JUDGE}/{MANIFEST}")
            for path in _listed(judge_manifest(draft, manifest) or {}):
                fetch(f"{JUDGE}/{path}")
    return commit


def _listed(manifest: dict[str, Any]) -> list[str]:
    """Return the paths in a manifest that somebody else may have written; a BundleError is raised if it has no list."""
    try:
        return [str(entry["path"]) for entry in manifest["files"]]
    except (KeyError, TypeError) as error:
        raise BundleError(f"{MANIFEST} is damaged (its list of files); push it again.") from error
