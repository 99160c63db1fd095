"""A package that AOTInductor compiled, run by torch on the CPU."""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError
from vitcompress.core.machine import cpu_flags
from vitcompress.exporters.latency import physical_cores
from vitcompress.exporters.onnx import first_line
from vitcompress.exporters.programs import quiet, tensor
from vitcompress.exporters.runners.base import Runner, input_of

FACTS = "compress"
"""Key, in a package's metadata, of the facts that ``read_facts`` returns."""


class AotiRunner(Runner):
    """A compiled package; it takes batches of 1 to ``max_batch``."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Load the file, to run on ``threads`` (None: one a physical core).

        Raises:
            EnvironmentLacksError: torch is not here, or the package was compiled for another processor or system.
            BundleError: the file is missing, damaged, or not a classifier of images.
        """
        facts = read_facts(path)
        torch = import_torch()
        lacking(path, facts)
        self.path, self._threads = path, threads or physical_cores()
        shape = facts["shape"]  # the largest
        self.input, self.size, self.channels = input_of(facts["dtype"], shape, path)
        self.max_batch, self.classes = shape[0], facts["classes"]
        try:
            with quiet():
                self._model: Any = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
        except RuntimeError as error:
            said = first_line(error)
            if facts["torch"] != torch.__version__:
                raise EnvironmentLacksError(
                    f"{path.name} was compiled with torch {facts['torch']} and does not load in {torch.__version__} "
                    f"({said}); run pip install torch=={facts['torch'].partition('+')[0]}."
                ) from error
            raise BundleError(f"{path} cannot be loaded ({said}).") from error

    def close(self) -> None:
        """Drop the model."""
        self._model = None

    def _infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        import torch

        before = torch.get_num_threads()
        try:
            torch.set_num_threads(self._threads)
            (logits,) = self._model.run([tensor(images)])
        except RuntimeError as error:
            raise ResultError(f"torch failed on {self.path.name} ({first_line(error)}).") from error
        finally:
            torch.set_num_threads(before)
        return np.asarray(logits.numpy(), dtype=np.float32)


def import_torch() -> Any:
    """Import torch; an EnvironmentLacksError is raised where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise EnvironmentLacksError("torch is not installed; run pip install torch.")
    import torch

    return torch


def read_facts(path: Path) -> dict[str, Any]:
    """Return what a package was compiled for, from its metadata; a BundleError is raised where it is damaged.

    ``platform``, ``machine`` and ``needs`` (the processor's flags) of where it runs, ``torch`` it was compiled with,
    ``dtype`` and ``shape`` of its largest input, ``classes``.
    """
    if not path.is_file():
        raise BundleError(f"{path} does not exist.")
    try:
        with zipfile.ZipFile(path) as package:
            broken = package.testzip()  # code that is not what was compiled may do anything
            (name, *_) = (one for one in package.namelist() if one.endswith("_metadata.json"))
            facts = json.loads(json.loads(package.read(name))[FACTS])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} is damaged or no package that compress compiled ({first_line(error)}).") from error
    if broken:
        raise BundleError(f"{path} is damaged: {broken} in it has another checksum.")
    return dict(facts)


def lacking(path: Path, facts: dict[str, Any]) -> None:
    """Raise an EnvironmentLacksError where this machine is none that a package was compiled for.

    Before its code is loaded: an instruction that the processor does not have ends the process without a word.
    """
    theirs, ours = (facts["platform"], facts["machine"]), (sys.platform, platform.machine())
    missing = sorted(set(facts["needs"]) - cpu_flags())
    if theirs != ours:
        why = f"{theirs[0]} on {theirs[1]}, and this is {ours[0]} on {ours[1]}"
    elif missing:
        why = f"a processor with {', '.join(missing)}, which this one lacks"
    else:
        return
    raise EnvironmentLacksError(f"{path.name} was compiled for {why}; use the ONNX file, or export it here.")
