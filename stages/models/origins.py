"""Networks of the Hugging Face hub (``hf-hub:ORG/NAME``) and of folders (``local-dir:FOLDER``), resolved once.

What comes of a name is an architecture of timm, its arguments and a file of weights, so that nothing later needs the
hub. A folder is as timm's ``save_for_hf`` or transformers' ``save_pretrained`` write it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from timm.models._hub import load_model_config_from_path

from vitcompress.core.errors import UsageError
from vitcompress.core.files import sha256_of
from vitcompress.core.network_names import OVERLAY, is_own, origin_of
from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.create import ENTRY
from vitcompress.stages.models.timm_files import OWN_WEIGHTS
from vitcompress.stages.models.transformers_format import preprocessing, timm_network

_KEPT = ("input_size", "fixed_input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std", "num_classes")
_ANY_SIZE = ("dinov2", "dinov2_with_registers", "dinov3_vit", "swin")
"""Networks of transformers that take the size of the images, whatever ``image_size`` says."""
_CONFIG, _IMAGES, _PARTS = "config.json", "preprocessor_config.json", "model.safetensors.index.json"
_FILES = ("model.safetensors", "pytorch_model.bin")
_PATIENCE = 4.0
"""Seconds that the hub has to answer."""
_SHOWN = 16
"""Hexadecimal digits of a digest in words."""


@dataclass(frozen=True)
class Origin:
    """What a name of the hub or of a folder means."""

    name: str
    """As given; a hub's with the commit that it was resolved to."""
    arch: str
    args: dict[str, Any]
    """For ``create``, preprocessing included (``OVERLAY``)."""
    words: str
    files: tuple[str, ...] = _FILES
    """That its weights may be in, the first one that is there."""

    def weights(self) -> tuple[Path, str]:
        """Return the file, fetched where it has to be, and where it comes from, with digests, in words."""
        path = next((path for path in (_file(self.name, file) for file in self.files) if path), None)
        if path is None:
            split = _file(self.name, _PARTS)
            why = "they are split into several files, which are not read" if split else "there, or in the hub's cache"
            raise UsageError(f"'{self.name}' has neither {' nor '.join(self.files)} ({why}); give weights in one file.")
        config = _file(self.name, _CONFIG)
        digests = (f"{each.name} sha256 {sha256_of(each)[:_SHOWN]}" for each in (config, path) if each)
        return path, f"{self.words}; {', '.join(digests)}"


def resolve_origin(name: str, role: str = "teacher") -> Origin:
    """Return what ``hf-hub:ORG/NAME[@REVISION]`` or ``local-dir:FOLDER`` means; the weights are not fetched.

    Of a lifted or widened network of ours a student is the network that it was made of, a teacher the whole of it.
    A UsageError is raised if it can be had neither from a cache nor from the hub, or is no such network.
    """
    found = _file(name, _CONFIG)
    kind, rest = origin_of(name) or ("", "")
    if found is None:
        raise UsageError(
            f"'{name}' has no {_CONFIG}; give what timm's save_for_hf or transformers' save_pretrained wrote."
        )
    at = "" if kind == "local-dir" else f" at commit {found.parent.name}"
    fixed = name if kind == "local-dir" else f"{kind}:{rest.partition('@')[0]}@{found.parent.name}"
    config = _json(found)
    files: tuple[str, ...] = _FILES
    if "model_type" in config and "architecture" not in config:
        images = _file(fixed, _IMAGES)
        try:
            arch, args, known = timm_network(config, f"'{name}'")
            known |= preprocessing(_json(images), f"'{name}'") if images else {}
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise UsageError(
                f"{_CONFIG} or {_IMAGES} of '{name}' lacks a value, or has one of another kind ({error!r}); write the "
                "folder anew by save_pretrained."
            ) from error
        if config["model_type"] in _ANY_SIZE and images:
            args["img_size"] = known["input_size"][-1]
        known["input_size"] = [3] + 2 * [args.get("img_size") or known.get("input_size", [224])[-1]]
        assumed = "" if images else f", images normalised as {arch}'s since there is no {_IMAGES}"
        words = f"{name}{at}, transformers' {config['model_type']} as timm's {arch}{assumed}"
    elif "architecture" in config:
        published, arch, given = load_model_config_from_path(found.parent)
        if ENTRY in config:  # timm's network answers as this student does, and has other taps
            arch, given, files = ENTRY, {"spec": config[ENTRY]}, (OWN_WEIGHTS,)
        # Saving writes what is decided here too: the classes, and a square's side twice.
        args = {key: value for key, value in (given or {}).items() if (key, value) != ("in_chans", 3)}
        args.pop("num_classes", None)
        if isinstance(sides := args.get("img_size"), list) and len({*sides}) == 1:
            args["img_size"] = sides[0]
        known = {key: published[key] for key in (*_KEPT, "label_names") if published.get(key) is not None}
        if arch == ENTRY and role == "student":
            try:
                spec = ModelSpec.model_validate(args.get("spec"))
            except ValidationError as error:
                raise UsageError(f"the {_CONFIG} of '{name}' has no 'spec' of a student; bundle it again.") from error
            arch, args = spec.arch, spec.args
        if is_own(arch):
            raise UsageError(
                f"the {_CONFIG} of '{name}' names code ('{arch}') and no architecture of timm; such code runs only "
                "where you name it yourself, as the network."
            )
        words = f"{name}{at}, timm's {arch}"
    else:
        raise UsageError(f"the {_CONFIG} of '{name}' names neither an architecture of timm nor a model_type.")
    return Origin(fixed, arch, {**args, OVERLAY: known}, words, files)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{path} is not JSON ({str(error)[:80]}).") from error
    return found if isinstance(found, dict) else {}


def _file(name: str, file: str) -> Path | None:
    """Return a file of a hub's repository, fetched if it has to be, or of a folder; None where there is none."""
    kind, rest = origin_of(name) or ("", "")
    if kind == "local-dir":
        folder = Path(rest).expanduser()
        if not folder.is_dir():
            raise UsageError(f"'{name}': the folder does not exist; give the one that holds {_CONFIG}.")
        return folder / file if (folder / file).is_file() else None
    import huggingface_hub as hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, _, given = rest.partition("@")
    revision, why = given or None, "HF_HUB_OFFLINE is set"
    try:
        if not hub.is_offline_mode():  # asked once, since downloading would try again and again
            hub.get_hf_file_metadata(hub.hf_hub_url(repository, file, revision=revision), timeout=_PATIENCE)
            return Path(hub.hf_hub_download(repository, file, revision=revision))
    except Exception as error:  # whatever the HTTP library of this version raises
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        why = f"asking the hub ended with {type(error).__name__}"
    try:
        cached, known = (hub.try_to_load_from_cache(repository, one, revision=revision) for one in (file, _CONFIG))
        if isinstance(known, str):
            return Path(cached) if isinstance(cached, str) else None
    except ValueError as error:  # HFValidationError
        why = " ".join(str(error).split())[:160]
    raise UsageError(
        f"'{name}' can be had neither from the local cache nor from the hub ({why}); give a folder with "
        "local-dir:FOLDER, or run once where the hub can be reached and set HF_HOME to its cache."
    )
