"""What tests of the config share: facts of their own, and the phases of deciding with them."""

from __future__ import annotations

from typing import Any

from vitcompress.core.records import DataRecord
from vitcompress.pipeline.config import RunConfig, merge, validate
from vitcompress.pipeline.config.decide import BEFORE_DATA, WITH_DATA
from vitcompress.pipeline.config.facts import Earlier, Facts
from vitcompress.pipeline.config.rules import decide


def images(train: int = 1438, classes: int = 10, val: int = 10) -> DataRecord:
    """A listing of so many images."""
    names = tuple(map(str, range(classes)))
    return DataRecord(
        config={}, source="x", classes=names, train_images=train, val_images=val, split="", digest="", checked=""
    )


def changed(config: RunConfig, **sections: Any) -> RunConfig:
    """The config with other settings, checked as a user's would be."""
    return validate(merge(config.model_dump(mode="json"), sections))


def before_data(config: RunConfig, earlier: Earlier | None = None, *, fetch: bool = True) -> RunConfig:
    """What is decided before any data is read."""
    return decide(config, Facts(config, earlier, fetch=fetch), BEFORE_DATA)[0]


def decided(
    config: RunConfig, data: DataRecord | None = None, earlier: Earlier | None = None, processes: int = 1
) -> RunConfig:
    """What is decided once the images are listed."""
    facts = Facts(config, earlier, processes)
    models, _ = decide(config, facts, BEFORE_DATA)
    return decide(models, facts.with_data(data or images()), WITH_DATA)[0]
