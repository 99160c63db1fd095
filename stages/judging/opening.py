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
from vitcompress.exporters.targets import Target
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


@contextmanager
def _built_anew(target: Target, path: Path, threads: int) -> Iterator[Infer]:
    with target.open(path, threads) as runner:
        yield runner.infer


def engine_contestant(
    absent: Contestant, path: Path, threads: int, pass_alone: ExitStack, stage: ExitStack
) -> Contestant:
    """Return what a target built as a contestant; where it cannot run, with the reason.

    What runs on a CPU is open as long as ``pass_alone``, for it is opened anew to be timed; an engine, which lies in
    the GPU's memory, as long as ``stage``.
    """
    absent = replace(absent, file=path)
    try:
        target = targets.get(absent.runtime)
        on_cpu = target.runs_on == "cpu"
        runner = (pass_alone if on_cpu else stage).enter_context(target.open(path, threads))
    except (EnvironmentLacksError, BundleError, UsageError) as error:
        return replace(absent, reason=str(error))
    if on_cpu:
        return replace(absent, infer=runner.infer, reason="", anew=partial(_built_anew, target, path, threads))
    on_gpu = getattr(runner, "time", None)  # what runs on a GPU times itself there
    return replace(absent, infer=runner.infer, reason="", on_gpu=on_gpu)
