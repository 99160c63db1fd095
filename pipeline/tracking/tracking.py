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
from vitcompress.pipeline.config import RunConfig
from vitcompress.pipeline.config.show import leaves
from vitcompress.pipeline.report.readings import last_settings
from vitcompress.pipeline.runner import Runner

if TYPE_CHECKING:
    from vitcompress.pipeline.tracking.sinks import Sink

_ANYWHERE = {"tracking", "check", "device", "workers", "threads"}
"""Settings that may differ between two sessions of one tracker's run."""


@contextmanager
def tracking(runner: Runner, resolved: RunConfig, asked: RunConfig) -> Iterator[Tracking]:
    """Within the block the run is sent to the trackers that it asks for; with none, nothing is done or written."""
    found, failed = Tracking(runner, resolved, asked), True
    runner.track = found.line if resolved.tracking.trackers else None
    try:
        yield found
        failed = False
    finally:
        for name, sink in found.sinks.items():
            found.guarded(name, lambda sink=sink: sink.finish(failed))  # type: ignore[misc]


class Tracking:
    """The trackers of one session; the first error of each is told, and ends its part of the session alone."""

    def __init__(self, runner: Runner, resolved: RunConfig, asked: RunConfig) -> None:
        """Open nothing yet. With other settings (``asked``) than an earlier session, a tracker's run is a new one."""
        self.runner, self.settings, self.device = runner, resolved.tracking, resolved.device
        self.path = runner.run.root / "tracking.json"
        self.sinks: dict[str, Sink] = {}
        self.failed: set[str] = set()
        try:
            self.kept: dict[str, Any] = json.loads(self.path.read_text())
        except (OSError, ValueError):
            self.kept = {}
        identity = {name: value for name, value in asked.identity().items() if name not in _ANYWHERE}
        subject = fingerprint(identity, self.settings.model_dump(mode="json", exclude={"trackers"}))
        for name in self.settings.trackers:
            if self.kept.get(name, {}).get("subject") != subject:
                self.kept[name] = {"subject": subject, "id": None, "sent": {}}

    def config(self, resolved: RunConfig) -> None:
        """Send the settings, once."""
        simple = {key: json.dumps(one) if isinstance(one, (list, dict)) else one for key, one in leaves(resolved, "")}
        self._once("config", 0, lambda sink: sink.tracker.store_init_configuration(simple))

    def line(self, values: Mapping[str, Any]) -> None:
        """Send a line of metrics.jsonl, or figures between two of them, which have no epoch."""
        training, step = str(values["training"]), values["step"]
        prefix = "distill" if training == "student" else training
        figures = {name: value for name, value in values.items() if isinstance(value, (int, float)) and name != "step"}
        figures |= {f"loss {term}": value for term, value in values.get("losses", {}).items()}
        named = {_plain(f"{prefix}/{name}"): float(value) for name, value in figures.items()}
        curve = f"{prefix} {values['settings']} {'epochs' if 'epoch' in values else 'steps'}"
        self._once(curve, step, lambda sink: sink.log(prefix, step, named))

    def report(self, report: Mapping[str, Any], folder: Path) -> None:
        """Send what earlier sessions did not send, then the results and the files of the report."""
        for lines in last_settings(report["history"]).values():
            for line in lines:
                self.line(line)
        figures = {"result/exit_code": report["verdict"]["exit_code"]}
        for row in report["models"]:
            figures[f"result/{row['label']}/top1"] = row["top1"]["value"]
            figures[f"result/{row['label']}/latency_ms"] = row["latency"]["1"]["p50_ms"]["value"]
        for row in report["gates"]:
            figures[f"gates/{row['artifact']} {row['gate']}"] = {"pass": 1, "fail": 0}.get(row["verdict"])
        named = {_plain(name): float(value) for name, value in figures.items() if value is not None}

        def send(sink: Sink) -> None:
            earlier = sum(key.startswith("report ") for key in self.kept[sink.name]["sent"])
            sink.log("result", earlier, named)
            sink.report([folder / "report.html", folder / "report.json"])

        self._once(f"report {sha256_of(folder / 'report.json')}", 0, send)

    def _once(self, key: str, step: int, work: Callable[[Sink], None]) -> None:
        """Do ``work`` with each tracker that was not sent ``key`` up to this step; it is opened if it was not."""
        for name in self.settings.trackers:
            if name not in self.failed and step > self.kept[name]["sent"].get(key, -1):
                opening = name not in self.sinks
                self.guarded(name, lambda name=name: self._send(name, key, step, work))  # type: ignore[misc]
                if opening and name in self.sinks:
                    self.runner.line("track", f"{name}: {self.sinks[name].place}")

    def _send(self, name: str, key: str, step: int, work: Callable[[Sink], None]) -> None:
        if name not in self.sinks:
            from vitcompress.pipeline.tracking.sinks import Sink
            from vitcompress.stages.training.device import make_accelerator

            make_accelerator(self.device)  # Accelerate's trackers log through its state, which has this run's device
            self.sinks[name] = Sink(name, self.settings, self.runner.run.root, self.kept[name]["id"])
        work(self.sinks[name])
        self.kept[name]["id"] = self.sinks[name].identifier
        self.kept[name]["sent"][key] = step
        write_atomic(self.path, json.dumps(self.kept, indent=2) + "\n")

    def guarded(self, name: str, work: Callable[[], None]) -> None:
        """Do ``work`` of a tracker; a failure is told, once.

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
            more = "the run goes on without it, and the same command sends the rest"
            self.runner.line("warning", f"tracker {name} failed ({trouble}); {more}.")


def _plain(name: str) -> str:
    """Return a name of figures with only what every tracker takes in one."""
    return re.sub(r"[^\w./ -]+", "", name)
