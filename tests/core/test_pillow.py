from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

from nasty_images import damaged_exif, noise

from vitcompress.core.pillow import hushed

SPEAKING = """
import sys
from pathlib import Path
from vitcompress.core.images import open_image
from vitcompress.core.pillow import hush
if sys.argv[1] == "hush":
    hush()
open_image(Path(sys.argv[2]), transparency="dropped")
open_image(Path(sys.argv[3]))
import logging
logging.getLogger("PIL.TiffImagePlugin").error("a remark")
"""


def test_nothing_of_pillows_reaches_the_terminal_once_hushed(tmp_path: Path) -> None:
    noise().quantize(16).save(tmp_path / "a.png", transparency=bytes(range(0, 160, 10)))
    noise().save(tmp_path / "b.jpg", exif=damaged_exif())
    root = Path(__file__).parents[2]
    for how in ("", "hush"):
        words = [sys.executable, "-W", "default", "-c", SPEAKING, how, str(tmp_path / "a.png"), str(tmp_path / "b.jpg")]
        done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
        if not how:
            assert done.stderr.count("UserWarning") >= 2
            assert "Transparency" in done.stderr
            assert "a remark" in done.stderr
    assert (done.stdout, done.stderr) == ("", "")


def test_warnings_are_afterwards_as_before() -> None:
    before = list(warnings.filters)
    with hushed():
        assert warnings.filters != before
    assert warnings.filters == before
