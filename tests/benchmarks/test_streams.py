"""Two processes with two loaders each, over every kind of source: each image once."""

from __future__ import annotations

from pathlib import Path

import pytest
from streams import SOURCES, launched, made, verdict

pytest.importorskip("webdataset")
pytest.importorskip("datasets")

STREAMS = ("wds", "hfids")
"""Those whose processes must agree on shards; in the others every image can be had by its number."""


@pytest.mark.parametrize(
    "sources",
    [STREAMS, pytest.param(tuple(source for source in SOURCES if source not in STREAMS), marks=pytest.mark.sweep)],
    ids=",".join,
)
def test_two_processes_with_two_loaders_see_each_image_once(sources: tuple[str, ...], tmp_path: Path) -> None:
    configs = {}
    for source in sources:
        (tmp_path / source).mkdir()
        configs[source] = made(tmp_path / source, source)
    found = {source: verdict(parts) for source, parts in launched(tmp_path, configs, 2, 2).items()}
    assert {source: one["right"] for source, one in found.items()} == dict.fromkeys(sources, True), found


def test_an_image_seen_twice_or_lost_is_wrong() -> None:
    right = {"steps": 12, "said": 12, "trained": list(range(192)), "val": list(range(203, 248))}
    assert verdict([right])["right"]
    for change in (
        {"trained": [*range(191), 0]},
        {"trained": list(range(191))},
        {"val": list(range(203, 247))},
        {"val": [*range(203, 248), 203]},
        {"said": 6},
    ):
        assert not verdict([{**right, **change}])["right"]
