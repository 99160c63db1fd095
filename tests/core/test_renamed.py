"""A pretend old name of a setting, an option and an argument: it works, and one warning says until when."""

from __future__ import annotations

import json
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest
from command_line import in_process

from vitcompress.core import renamed
from vitcompress.core.errors import UsageError
from vitcompress.core.renamed import OldName, Renamed, renamed_arguments
from vitcompress.pipeline.config import load_layer, parse_sets

WARMTH = Renamed("distill.warmth", "distill.tau", gone="9.0")


def parts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


def test_no_name_outlives_its_version() -> None:
    late = [each for each in (*renamed.SETTINGS, *renamed.OPTIONS) if parts(each.gone) <= parts(version("vitcompress"))]
    assert late == [], "remove them"


def test_an_old_setting_works_and_warns_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renamed, "SETTINGS", (WARMTH, Renamed("speed", "distill.lr", gone="9.0")))
    (tmp_path / "old.yaml").write_text("distill: {warmth: 2.0, epochs: 3}\nspeed: 0.1\n")
    said = "'distill.warmth' is called 'distill.tau' now; version 9.0 will not have the old name."
    with pytest.warns(OldName) as warned:
        layer = load_layer(str(tmp_path / "old.yaml"))
    assert layer == {"distill": {"tau": 2.0, "epochs": 3, "lr": 0.1}}
    assert str(warned[0].message) == said
    with pytest.warns(OldName):
        assert parse_sets(["distill.warmth=2"]) == {"distill": {"tau": 2}}
    with pytest.raises(UsageError, match=r"both are given; give 'distill.tau'"):
        parse_sets(["distill.warmth=2", "distill.tau=3"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse_sets(["distill=warmth", "seed=1"]) == {"distill": "warmth", "seed": 1}
    networks = ("--teacher", "cait_s24", "--student", "deit_tiny")
    told = in_process("config", "show", *networks, "--json", "--set", "speed=1")
    assert told.err == "warning: 'speed' is called 'distill.lr' now; version 9.0 will not have the old name.\n"
    rows = {row["key"]: row for row in json.loads(told.out)["settings"]}
    assert (rows["distill.lr"]["value"], rows["distill.lr"]["origin"]) == (1, "--set")


def test_an_old_option_works_and_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renamed, "OPTIONS", (Renamed("as-json", "json", gone="9.0"),))
    told = in_process("recipes", "--as-json")
    assert told.code == 0
    assert json.loads(told.out)["schema"] == "recipes"
    assert "warning: 'as-json' is called 'json' now" in told.err


def test_an_old_argument_works_and_warns_where_it_is_called() -> None:
    @renamed_arguments(Renamed("warmth", "tau", gone="9.0"))
    def soften(logits: float, *, tau: float = 1.0) -> float:
        """Divide."""
        return logits / tau

    with pytest.warns(OldName, match="'warmth' is called 'tau' now") as told:
        assert soften(4.0, warmth=2.0) == 2.0  # type: ignore[call-arg]
    assert told[0].filename == __file__
    assert soften(4.0, tau=4.0) == 1.0
    with pytest.raises(UsageError, match="both are given"):
        soften(4.0, tau=1.0, warmth=2.0)  # type: ignore[call-arg]
