"""A run that is decided as `compress run` would decide it, and not begun: for `--dry-run` and `compress config show`.

Every check that a run makes before it computes is made, but that every image decodes. Nothing stays on disk. Pretrained
weights are not fetched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from vitcompress.core.context import Context
from vitcompress.core.errors import UsageError
from vitcompress.core.processes import world_size
from vitcompress.core.records import DataRecord
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.config import RunConfig, with_absolute_paths
from vitcompress.pipeline.config.choice import Choice
from vitcompress.pipeline.config.decide import BEFORE_DATA, WITH_DATA
from vitcompress.pipeline.config.facts import Earlier, Facts
from vitcompress.pipeline.config.rules import decide
from vitcompress.pipeline.machine import threads_each
from vitcompress.pipeline.plan import STAGES
from vitcompress.pipeline.request import default_output, identity, refuse_inside_data
from vitcompress.stages.data import stage as data_stage


@dataclass(frozen=True)
class Preview:
    """What a run would be."""

    output: Path
    """The run directory; it is not made."""
    begun: bool
    """Whether it holds this run already."""
    processes: int
    """That would train together."""
    asked: RunConfig
    config: RunConfig
    """What config.yaml would hold."""
    choices: tuple[Choice, ...]
    """Every setting that was decided."""
    data: DataRecord
    context: Context
    """Of a run directory that is removed afterwards."""

    @property
    def shares_cores(self) -> bool:
        """Whether loading images takes time from the networks."""
        return self.context.workers == 0 or self.context.device == "cpu"


@contextmanager
def preview(config: RunConfig, output: Path | None, processes: int, console: Console) -> Iterator[Preview]:
    """Decide, check, and hand out a temporary run directory; arguments and errors are those of ``run_all``'s start."""
    if world_size() > 1:
        raise UsageError("--dry-run measures in one process; start it without torchrun, with --num-processes N.")
    config = with_absolute_paths(config)
    root = output or default_output(config)
    refuse_inside_data(root, config)
    for stage in STAGES:
        stage.facts(config)
    facts = Facts(config, Earlier.of(root), processes, fetch=False)
    models, choices = decide(config, facts, BEFORE_DATA)
    begun = RunDirectory.begun(root, identity(models))
    with TemporaryDirectory(prefix="compress-dry-run-") as folder:
        context = Context(
            run=RunDirectory.claim(Path(folder) / "run", identity(models)),
            seed=config.seed,
            device=models.device,
            workers=int(models.workers),
            threads=int(models.threads) or (threads_each(processes) if processes > 1 else 0),
            console=console,
            verbose=False,
        )
        skipping = models.data.on_bad_image == "skip"  # else a few steps could meet an image that a run leaves out
        unopened = models.data if skipping else models.data.model_copy(update={"check": "skip"})
        data = data_stage.run(unopened, data_stage.Inputs(), context)
        listed = bool(facts.earlier) and bool(RunDirectory(root).stage_state("data"))
        same = listed and RunDirectory(root).load_record("data", DataRecord).digest == data.digest
        resolved, more = decide(models, facts.with_data(data, same_images=same), WITH_DATA)
        yield Preview(root, begun, processes, config, resolved, (*choices, *more), data, context)
