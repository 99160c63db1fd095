"""What a run sends to its trackers, each thing once, however often the run is stopped and resumed.

RUN/tracking.json has the tracker's run that this one goes on in, and the last step of each curve that it was sent.
"""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitcompress.core.files import sha256_of, write_atomic
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.record import Record
from vitcompress.pipeline.config import RunConfig
from vitcompress.pipeline.report.readings import last_settings
from vitcompress.pipeline.runner import Runner

if TYPE_CHECKING:
    from vitcompress.pipeline.tracking.sinks import Sink

_STAGES = {"student": "distill"}
"""Stages of trainings that are not named as their stage."""
_ANYWHERE = {"tracking", "check", "device", "workers", "threads"}
"""Settings that may differ between two sessions of one tracker's run."""


class Tracking:
    """The trackers of one session; the first error of each is told, and ends its part of the session alone."""

    def __init__(self, runner: Runner, resolved: RunConfig, asked: RunConfig) -> None:
        """Open nothing yet. With other settings (``asked``) than an earlier session, a tracker's run is a new one."""
        self.runner, self.settings, self.device = runner, resolved.tracking, resolved.device
        self.path = runner.run.root / "tracking.json"
        self.sinks: dict[str, Sink] = {}
        self.failed: set[str] = set()
        identity = {name: value for name, value in asked.identity().items() if name not in _ANYWHERE}
        place = self.settings.model_dump(mode="json", exclude={"trackers"})
        self.subject = fingerprint(identity, place)
        try:
            self.kept: dict[str, Any] = json.loads(self.path.read_text())
        except (OSError, ValueError):
            self.kept = {}
        for name in self.settings.trackers:
            if self.kept.get(name, {}).get("subject") != self.subject:
                self.kept[name] = {"subject": self.subject, "id": None, "sent": {}}

    def config(self, resolved: RunConfig) -> None:
        """Send the settings, once."""
        values = dict(_flat(resolved))
        for name in self.settings.trackers:
            self._once(name, "config", 0, lambda sink: sink.tracker.store_init_configuration(values))

    def line(self, values: Mapping[str, Any]) -> None:
        """Send a line of metrics.jsonl, or figures between two of them, which have no epoch."""
        training = str(values["training"])
        prefix = _STAGES.get(training, training)
        curve = f"{prefix} {values['settings']} {'epochs' if 'epoch' in values else 'steps'}"
        figures = {name: value for name, value in values.items() if isinstance(value, (int, float)) and name != "step"}
        figures |= {f"loss {term}": value for term, value in values.get("losses", {}).items()}
        named = {plain(f"{prefix}/{name}"): float(value) for name, value in figures.items()}
        for name in self.settings.trackers:
            self._once(name, curve, values["step"], lambda sink: sink.log(prefix, values["step"], named))

    def report(self, report: Mapping[str, Any], folder: Path) -> None:
        """Send what earlier sessions did not send, then the verdict and the files of the report."""
        for lines in last_settings(report["history"]).values():
            for line in lines:
                self.line(line)
        figures, words = result_of(report)

        def send(sink: Sink, step: int) -> None:
            sink.log("result", step, figures)
            sink.words(words)
            sink.artifact([folder / "report.html", folder / "report.json"])

        for name in self.settings.trackers:
            key, sent = f"report {sha256_of(folder / 'report.json')}", self.kept[name]["sent"]
            earlier = sum(one.startswith("report ") for one in sent)
            self._once(name, key, 0, lambda sink, step=earlier: send(sink, step))  # type: ignore[misc]

    def close(self, failed: bool) -> None:
        """End every tracker's session, also that of one that failed."""
        for name, sink in self.sinks.items():
            self._guarded(name, lambda sink=sink: sink.finish(failed))  # type: ignore[misc]

    def _once(self, name: str, key: str, step: int, work: Callable[[Sink], None]) -> None:
        """Do ``work`` with a tracker, open now if it was not, unless ``key`` was sent up to this step."""
        kept = self.kept[name]
        if name in self.failed or step <= kept["sent"].get(key, -1):
            return

        def send() -> None:
            if name not in self.sinks:
                self.sinks[name] = self._opened(name)
            work(self.sinks[name])
            kept["sent"][key] = step
            write_atomic(self.path, json.dumps(self.kept, indent=2) + "\n")

        opening = name not in self.sinks
        if self._guarded(name, send) and opening:
            self.runner.line("track", f"{name}: {self.sinks[name].where()}")

    def _opened(self, name: str) -> Sink:
        from vitcompress.pipeline.tracking.sinks import SINKS
        from vitcompress.stages.training.device import make_accelerator

        make_accelerator(self.device)  # Accelerate's trackers log through its state, which has this run's device
        sink = SINKS[name](self.settings, self.runner.run.root, self.kept[name]["id"])
        self.kept[name]["id"] = sink.identifier
        return sink

    def _guarded(self, name: str, work: Callable[[], None]) -> bool:
        """Do ``work``, and return whether it went well; a failure is told.

        What a library prints goes to the log, and no random number that it draws is missed in the training.
        """
        said, state = io.StringIO(), random.getstate()
        trouble = ""
        try:
            with redirect_stdout(said), redirect_stderr(said):
                work()
        except Exception as error:  # whatever a library, a network or a disk may raise
            trouble = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        finally:
            random.setstate(state)
        for line in said.getvalue().splitlines():
            self.runner.log(f"{name}: {line}")
        if trouble and name not in self.failed:
            self.failed.add(name)
            self.runner.line(
                "warning",
                f"tracker {name} failed ({trouble}); the run goes on without it, and the same command sends the rest.",
            )
        return not trouble


@contextmanager
def tracking(runner: Runner, resolved: RunConfig, asked: RunConfig) -> Iterator[Tracking]:
    """Within the block the run is sent to the trackers that it asks for; with none, nothing is done or written."""
    found, failed = Tracking(runner, resolved, asked), True
    runner.track = found.line if resolved.tracking.trackers else None
    try:
        yield found
        failed = False
    finally:
        found.close(failed)


def result_of(report: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """Return a report's figures by name (top-1 percent, latency of one image in ms; a gate 1 or 0), and its words."""
    verdict = report["verdict"]
    figures: dict[str, float | None] = {"result/exit_code": verdict["exit_code"]}
    words = {"verdict": f"{verdict['word']}: {verdict['why']}"}
    for row in report["models"]:
        figures[f"result/{row['label']}/top1"] = row["top1"]["value"]
        figures[f"result/{row['label']}/latency_ms"] = row["latency"]["1"]["p50_ms"]["value"]
    for row in report["gates"]:
        name = f"{row['artifact']} {row['gate']}"
        figures[f"gates/{name}"] = {"pass": 1.0, "fail": 0.0}.get(row["verdict"])
        words[f"verdicts/{name}"] = row["verdict"]
    known = {plain(name): float(value) for name, value in figures.items() if value is not None}
    return known, {plain(name): value for name, value in words.items()}


def plain(name: str) -> str:
    """Return a name of figures with only what every tracker takes in one."""
    return " ".join(re.sub(r"[^\w./ -]+", "", name).split()).replace(" /", "/")


def _flat(config: Record, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings by dotted name; lists and mappings as JSON."""
    for name, value in config:
        if isinstance(value, Record):
            yield from _flat(value, f"{above}{name}.")
        elif not name.endswith("_reason"):
            simple = value is None or isinstance(value, (bool, int, float, str))
            dumped = config.model_dump(mode="json", include={name})[name]
            yield f"{above}{name}", value if simple else json.dumps(dumped)
