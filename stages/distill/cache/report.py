"""What a cache holds and what it took, for the record and for the person watching."""

from __future__ import annotations

from vitcompress.core.record import Record
from vitcompress.stages.distill.cache.store import Store


class PartReport(Record):
    """How one quantity is stored."""

    name: str
    bytes: int
    dense_bytes: int
    """The same in plain half precision."""
    mean_rank: float | None
    """Over rows stored as factors; null when there are none."""
    low_rank_share: float
    """Share of the rows stored as factors, in [0, 1]."""
    error: float
    """Largest relative error (Frobenius) of a row, measured."""


class CacheReport(Record):
    """A complete cache."""

    rows: int
    computed: int
    """Views that the teacher was run on this time, by this process."""
    seconds: float
    parts: tuple[PartReport, ...]


def report_of(store: Store, computed: int, seconds: float) -> CacheReport:
    """How a complete cache is stored, from its manifests."""
    parts = []
    for part in store.parts:
        chunks = list(store.manifest(part).chunks.values())
        factored = [(chunk.rows, chunk.mean_rank) for chunk in chunks if chunk.mean_rank is not None]
        rows = sum(count for count, _ in factored)
        parts.append(
            PartReport(
                name=part.name,
                bytes=sum(chunk.bytes for chunk in chunks),
                dense_bytes=sum(chunk.dense_bytes for chunk in chunks),
                mean_rank=sum(count * rank for count, rank in factored) / rows if rows else None,
                low_rank_share=rows / store.rows,
                error=max(chunk.error for chunk in chunks),
            )
        )
    return CacheReport(rows=store.rows, computed=computed, seconds=seconds, parts=tuple(parts))


def summary(report: CacheReport) -> str:
    """The report in a line."""

    def text(part: PartReport) -> str:
        rank = f", mean rank {part.mean_rank:.0f}" if part.mean_rank is not None else ""
        return f"{part.name} {part.bytes / 1e6:.1f} MB of {part.dense_bytes / 1e6:.1f}{rank}, error {part.error:.1e}"

    return (
        f"teacher cache: {report.rows} views, {report.computed} computed in {report.seconds:.0f} s "
        f"({'; '.join(text(part) for part in report.parts)})"
    )
