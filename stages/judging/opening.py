"""How a file becomes a contestant: an ONNX graph, an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from vitcompress.core.errors import BundleError, EnvironmentLacksError, UsageError
from vitcompress.exporters import targets
from vitcompress.exporters.runners import OnnxRunner, Provider
from vitcompress.stages.judging.contestant import Contestant, Infer


@contextmanager
def _onnx_anew(path: Path, threads: int, provider: Provider) -> Iterator[Infer]:
    with OnnxRunner(path, threads=threads, providers=provider) as runner:
        yield runner.infer


def onnx_contestant(absent: Contestant, path: Path, threads: int, provider: Provider, stack: ExitStack) -> Contestant:
    """Return an ONNX file as a contestant, open as long as ``stack``.

    ``absent`` says what it is. One meant for a GPU that it does not get is not run on the CPU instead: it stays
    ``absent``, with the reason. An EnvironmentLacksError or a BundleError is raised where the CPU cannot run fp32.
    """
    try:
        runner = stack.enter_context(OnnxRunner(path, threads=threads, providers=provider))
    except (EnvironmentLacksError, BundleError) as error:
        # A runtime may have no kernels for a precision (bfloat16 on a CPU); the file was checked when it was made.
        expected = provider != "cpu" if isinstance(error, EnvironmentLacksError) else absent.precision != "fp32"
        if not expected:
            raise
        return replace(absent, reason=str(error))
    return replace(
        absent, infer=runner.infer, provider=runner.provider, anew=partial(_onnx_anew, path, threads, provider)
    )


def engine_contestant(absent: Contestant, path: Path, stack: ExitStack) -> Contestant:
    """Return what a target built as a contestant, open as long as ``stack``; where it cannot run, with the reason."""
    absent = replace(absent, file=path)
    try:
        runner = stack.enter_context(targets.get(absent.runtime).open(path))
    except (EnvironmentLacksError, BundleError, UsageError) as error:
        return replace(absent, reason=str(error))
    on_gpu = getattr(runner, "time", None)  # what runs on a GPU times itself there
    return replace(absent, infer=runner.infer, reason="", on_gpu=on_gpu)
