"""Compress Vision Transformers from a wide teacher to a small deployable student, with proof of what it cost.

    import vitcompress as vc
    run = vc.run(teacher="cait_s24", student="deit_tiny", strategy="lift", data="images/", min_speedup=2.0)
    run.verdict, run.report, run.bundle.predict(["a.png"])

Names are imported when they are first asked for, so that the import itself takes no time and no torch.

The folders of this package stand beside it in the repository (``core``, ``exporters``, ``stages``, ``pipeline``); the
links in this folder are where Python, type checkers and editors find them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vitcompress.core.errors import (
    BundleError,
    CompressError,
    DataError,
    EnvironmentLacksError,
    ResultError,
    RunInterrupted,
    UsageError,
)

if TYPE_CHECKING:
    from vitcompress.exporters.bundle.signature import Signed, check_signature, sign
    from vitcompress.exporters.predict import Prediction
    from vitcompress.pipeline.api.arguments import Analysis
    from vitcompress.pipeline.api.baselines import Comparison, check, update_baseline
    from vitcompress.pipeline.api.bundle import Bundle
    from vitcompress.pipeline.api.distilling import Distilled, distill
    from vitcompress.pipeline.api.networks import fold
    from vitcompress.pipeline.api.packing import Packed, pack
    from vitcompress.pipeline.api.runs import Run, analyze, export, run
    from vitcompress.pipeline.api.verifying import Verified, verify
    from vitcompress.pipeline.compare.targets import compare_targets
    from vitcompress.pipeline.doctor import Finding, examine
    from vitcompress.pipeline.hub.pull import Pulled, pull
    from vitcompress.pipeline.hub.push import Pushed, push
    from vitcompress.pipeline.sweep.face import sweep, sweep_worker

_HOMES = {
    "vitcompress.pipeline.api.arguments": ("Analysis",),
    "vitcompress.pipeline.api.baselines": ("Comparison", "check", "update_baseline"),
    "vitcompress.pipeline.api.bundle": ("Bundle",),
    "vitcompress.pipeline.api.distilling": ("Distilled", "distill"),
    "vitcompress.pipeline.api.networks": ("fold",),
    "vitcompress.pipeline.api.packing": ("Packed", "pack"),
    "vitcompress.pipeline.api.runs": ("Run", "analyze", "export", "run"),
    "vitcompress.pipeline.api.verifying": ("Verified", "verify"),
    "vitcompress.pipeline.compare.targets": ("compare_targets",),
    "vitcompress.pipeline.doctor": ("Finding", "examine"),
    "vitcompress.pipeline.hub.pull": ("Pulled", "pull"),
    "vitcompress.pipeline.hub.push": ("Pushed", "push"),
    "vitcompress.pipeline.sweep.face": ("sweep", "sweep_worker"),
    "vitcompress.exporters.bundle.signature": ("Signed", "check_signature", "sign"),
    "vitcompress.exporters.predict": ("Prediction",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Analysis",
    "Bundle",
    "BundleError",
    "Comparison",
    "CompressError",
    "DataError",
    "Distilled",
    "EnvironmentLacksError",
    "Finding",
    "Packed",
    "Prediction",
    "Pulled",
    "Pushed",
    "ResultError",
    "Run",
    "RunInterrupted",
    "Signed",
    "UsageError",
    "Verified",
    "analyze",
    "check",
    "check_signature",
    "compare_targets",
    "distill",
    "examine",
    "export",
    "fold",
    "pack",
    "pull",
    "push",
    "run",
    "sign",
    "sweep",
    "sweep_worker",
    "update_baseline",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import a name of the face from its home, and keep it."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'vitcompress' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
