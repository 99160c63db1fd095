"""Latency of several models side by side, in a way that a comparison can be trusted.

rounds      every model once a round, in shuffled order, after a detected warm-up
sessions    all models opened anew, several times, each time for some rounds
statistics  medians, speed-ups and changes, with intervals that know what one session can tell
pinning     the processor cores that all this happens on
"""

from vitcompress.exporters.latency.others import Others
from vitcompress.exporters.latency.pinning import physical_cores, pinned
from vitcompress.exporters.latency.rounds import (
    SETTLED,
    WARMUP_SHARE,
    WINDOW,
    Call,
    Rounds,
    measure,
    no_garbage_collection,
)
from vitcompress.exporters.latency.sessions import Measurement, Opener, measure_sessions
from vitcompress.exporters.latency.statistics import (
    TAIL_SAMPLES,
    Times,
    change_interval,
    half_width,
    logs_of,
    median_interval,
    percentiles,
    quantiles,
    speedup_interval,
)

__all__ = [
    "SETTLED",
    "TAIL_SAMPLES",
    "WARMUP_SHARE",
    "WINDOW",
    "Call",
    "Measurement",
    "Opener",
    "Rounds",
    "Times",
    "change_interval",
    "half_width",
    "logs_of",
    "measure",
    "measure_sessions",
    "median_interval",
    "no_garbage_collection",
    "percentiles",
    "Others",
    "physical_cores",
    "pinned",
    "quantiles",
    "speedup_interval",
]
