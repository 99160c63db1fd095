"""What other machines measured of a run's bundle, in the report of the run. Numbers of two machines are never compared.

Each machine is judged by the limits that the run has now. A gate that the run's own machine left unmeasured counts as
another machine judged it (the worst verdict, where there are several): what could be measured there, and only there,
passes or fails the run, and the row names the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vitcompress.core.judge_records import Verified, subject_of
from vitcompress.core.measured_records import GateRow, GatesRecord
from vitcompress.pipeline.report.models import model_rows
from vitcompress.pipeline.report.records import Records
from vitcompress.pipeline.report.shape import Gate, MeasuredElsewhere, ModelRow
from vitcompress.stages.gates.config import GatesConfig
from vitcompress.stages.gates.gate import Inputs, passed
from vitcompress.stages.gates.registry import words_of
from vitcompress.stages.gates.stage import STUDENT, judged
from vitcompress.stages.judging.tasks import score_of

OUTDATED = "it is of an earlier bundle of this run, with other models or images; measure the present one there"
_WORST = ("pass", "inconclusive", "fail")


def machine_of(records: Records, result: Verified, config: GatesConfig) -> MeasuredElsewhere:
    """Return what one machine measured, judged; of a result of an earlier bundle, that it is outdated."""
    about = result.model_dump(include={"machine", "at", "recorded_on"})
    if result.subject != subject_of(records.export, records.bundle, records.verify.images_digest):
        return MeasuredElsewhere(**about, outdated=OUTDATED)
    verify = result.verify
    own = {
        name: tuple(row for row in getattr(verify, name) if row.runtime != "torch") for name in ("accuracy", "latency")
    }
    there = replace(records, verify=verify.model_copy(update=own))
    inputs = Inputs(records.data, records.control, records.export, verify, records.bundle)
    rows = [row for row in judged(config, inputs).rows if row.artifact != STUDENT]
    score = score_of(verify.task, records.data.labelled)
    return MeasuredElsewhere(
        **about,
        latency_method=verify.latency_method,
        models=[ModelRow.model_validate(row) for row in model_rows(there)],
        gates=[
            Gate.model_validate(row.model_dump() | {"machine": result.machine} | words_of(row.gate, score))
            for row in rows
        ],
    )


def counted(gates: GatesRecord, machines: Sequence[MeasuredElsewhere], not_made: Sequence[str]) -> GatesRecord:
    """Return the run's gates, those that it left unmeasured as other machines judged them."""
    there: dict[tuple[str, str], list[Gate]] = {}
    for row in (row for machine in machines for row in machine.gates if row.verdict != "unmeasured"):
        there.setdefault((row.gate, row.artifact), []).append(row)
    rows = tuple(_worst(row, there.get((row.gate, row.artifact), [])) for row in gates.rows)
    return GatesRecord(rows=rows, passed=passed(rows) and not not_made)


def _worst(own: GateRow, others: Sequence[Gate]) -> GateRow:
    if own.verdict != "unmeasured" or not others:
        return own
    found = max(others, key=lambda row: _WORST.index(row.verdict))
    values = found.model_dump(include=set(GateRow.model_fields))
    return GateRow(**{**values, "why": f"measured on {found.machine}: {found.why}"})
