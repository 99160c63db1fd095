"""The example for Ray Tune on the page, with a stand-in for Ray."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import vitcompress as vc

PAGE = Path(__file__).parents[3] / "docs" / "sweep.md"


def test_each_trial_of_ray_is_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    reports: list[dict[str, Any]] = []

    class Tuner:
        def __init__(self, worker: Any, tune_config: Any) -> None:
            self.fit = lambda: [worker({}) for _ in range(tune_config.num_samples)]

    ray = ModuleType("ray")
    ray.tune = SimpleNamespace(  # type: ignore[attr-defined]
        report=reports.append, Tuner=Tuner, TuneConfig=SimpleNamespace, with_resources=lambda worker, given: worker
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(vc, "sweep_worker", lambda folder, progress: SimpleNamespace(left={"/shared/sweep": 0}[folder]))
    exec(script, {})  # noqa: S102 - of our own page
    assert reports == [{"left": 0}] * 8
