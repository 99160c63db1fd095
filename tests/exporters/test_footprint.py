from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_driver import FakeDriver

from vitcompress.core.errors import EnvironmentLacksError
from vitcompress.core.measured_records import ColdStart
from vitcompress.exporters import footprint as under_test
from vitcompress.exporters.rapl import Rapl
from vitcompress.exporters.targets.tensorrt import TensorrtTarget

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="this system tells no peak memory")


@needs_proc
def test_a_fresh_process_tells_its_start_and_that_more_images_need_more_memory(
    onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(onnx_file.parent)  # a relative path is the caller's, not the process's
    start, one, many = (
        under_test.footprint_of("onnx", Path(onnx_file.name), batch, threads=1) for batch in (0, 1, 256)
    )
    assert set(start) == {"start"}
    assert all(min(ColdStart(**each["start"]).model_dump().values()) > 0 for each in (start, one, many))
    assert one["empty_rss_bytes"] < one["peak_rss_bytes"]
    assert many["peak_rss_bytes"] - one["peak_rss_bytes"] > 255 * 4 * 3 * 32 * 32  # the images alone
    assert (one["joules"] is None) == ("joules_reason" in one)


@needs_proc
def test_memory_is_also_that_of_processes_which_it_starts() -> None:
    alone = under_test.peak_rss_bytes()
    code = "kept = bytearray(200_000_000); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert under_test.peak_rss_bytes() - alone > 200_000_000
        child.communicate(b"\n")


@needs_proc
def test_what_the_process_says_is_the_error(tmp_path: Path) -> None:
    (tmp_path / "damaged.onnx").write_bytes(b"nothing")
    with pytest.raises(EnvironmentLacksError, match=r"damaged\.onnx is damaged or no ONNX file"):
        under_test.footprint_of("onnx", tmp_path / "damaged.onnx", 1, threads=1)


@needs_proc
def test_more_starts_are_each_in_a_process_that_has_no_runtime_yet(onnx_file: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.onnx").write_bytes(b"nothing")
    once = ColdStart(**under_test.footprint_of("onnx", onnx_file, 0, threads=1)["start"])
    with under_test.Starter() as starter:
        again = [ColdStart(**starter.start("onnx", onnx_file, 1)) for _ in range(2)]
        with pytest.raises(EnvironmentLacksError, match=r"damaged\.onnx is damaged or no ONNX file"):
            starter.start("onnx", tmp_path / "damaged.onnx", 1)
        again.append(ColdStart(**starter.start("onnx", onnx_file, 1)))  # one that failed ends nothing
    assert all(each.import_ms > once.import_ms / 10 for each in again)  # else it was there already


def test_a_process_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "LIMIT_SECONDS", 0.01)
    with pytest.raises(EnvironmentLacksError, match=r"given up after 0\.01 s"):
        under_test.footprint_of("onnx", Path("a.onnx"), 1, threads=1)


def test_what_a_library_prints_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = 'welcome to this library\n{"peak_rss_bytes": 7}\n'
    done = subprocess.CompletedProcess([], 0, stdout=printed, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert under_test.footprint_of("onnx", Path("a.onnx"), 1, threads=1) == {"peak_rss_bytes": 7}


@needs_proc
def test_an_engines_gpu_memory_is_what_is_gone_after_it_ran(
    engine_driver: FakeDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TensorrtTarget, "load_library", lambda self: None)  # the fake one is there already
    (tmp_path / "model.engine").write_bytes(b"good")
    found = under_test._measured("tensorrt-rtx", tmp_path / "model.engine", 4, 1)
    assert found["gpu_bytes"] == 4 * (4 * 3 * 32 * 32) + 4 * (4 * 10)  # images in and logits out, float32
    assert found["peak_rss_bytes"] > 0
    assert "joules" not in found  # the card's own counter tells it, elsewhere


@dataclass
class Zone:
    """One counter of a processor, as Linux shows it."""

    folder: Path
    name: str
    microjoules: int
    end: int = 262_143_328_850

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "name").write_text(f"{self.name}\n")
        (self.folder / "max_energy_range_uj").write_text(f"{self.end}\n")
        self.burn(0)

    def burn(self, microjoules: int) -> None:
        self.microjoules = (self.microjoules + microjoules) % self.end
        (self.folder / "energy_uj").write_text(f"{self.microjoules}\n")


def test_energy_is_that_of_every_package_also_where_a_counter_begins_again(tmp_path: Path) -> None:
    one = Zone(tmp_path / "intel-rapl:0", "package-0", 262_143_000_000)  # begins again soon
    other = Zone(tmp_path / "intel-rapl:1", "package-1", 5)
    zones = one, other, Zone(tmp_path / "intel-rapl:0:0", "core", 1), Zone(tmp_path / "intel-rapl:2", "psys", 1)
    now = [0.0]

    def infer() -> None:  # 40 ms and 2 + 2 J; core and psys would count some of it twice
        now[0] += 0.04
        for zone in zones:
            zone.burn(2_000_000)

    found = under_test.energy(infer, Rapl(tmp_path), lambda: now[0])
    assert found["joules"] == pytest.approx(4.0)
    assert [found["joules_low"], found["joules_high"]] == pytest.approx([4.0, 4.0])  # no scatter
    assert now[0] >= 1.0
    stuck = under_test.energy(lambda: now.__setitem__(0, now[0] + 1), Rapl(tmp_path), lambda: now[0])
    assert stuck == {"joules": None, "joules_reason": "the processor's energy counter did not advance"}


def test_why_a_processor_does_not_tell_its_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "shows no energy counter" in Rapl(tmp_path / "absent").reason
    Zone(tmp_path / "intel-rapl:0", "package-0", 7)
    assert Rapl(tmp_path).reason == ""
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("damaged")
    assert "cannot be read" in Rapl(tmp_path).reason

    def forbidden(path: Path) -> str:  # root may read everything, so the file's mode would not do
        raise PermissionError(path)

    monkeypatch.setattr(Path, "read_text", forbidden)
    found = under_test.energy(lambda: pytest.fail("it was run"), Rapl(tmp_path))
    assert found["joules_reason"].startswith("only root may read")
