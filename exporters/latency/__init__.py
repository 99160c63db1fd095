"""Latency of several models side by side, in a way that a comparison can be trusted.

rounds      every model once a round, in shuffled order, after a detected warm-up
sessions    all models opened anew, several times, each time for some rounds
statistics  medians, speed-ups and changes, with intervals that know what one session can tell
pinning     the processor cores that all this happens on
card        what the GPU does meanwhile, and who else uses it
"""

from vitcompress.exporters.latency.pinning import Others as Others
from vitcompress.exporters.latency.pinning import physical_cores as physical_cores
from vitcompress.exporters.latency.pinning import pinned as pinned
from vitcompress.exporters.latency.rounds import WARMUP_SHARE as WARMUP_SHARE
from vitcompress.exporters.latency.rounds import Call as Call
from vitcompress.exporters.latency.rounds import Rounds as Rounds
from vitcompress.exporters.latency.rounds import measure as measure
from vitcompress.exporters.latency.rounds import no_garbage_collection as no_garbage_collection
from vitcompress.exporters.latency.sessions import Measurement as Measurement
from vitcompress.exporters.latency.sessions import measure_sessions as measure_sessions
from vitcompress.exporters.latency.statistics import TAIL_SAMPLES as TAIL_SAMPLES
from vitcompress.exporters.latency.statistics import Times as Times
from vitcompress.exporters.latency.statistics import change_interval as change_interval
from vitcompress.exporters.latency.statistics import median_interval as median_interval
from vitcompress.exporters.latency.statistics import percentiles as percentiles
from vitcompress.exporters.latency.statistics import quantiles as quantiles
from vitcompress.exporters.latency.statistics import speedup_interval as speedup_interval
