from __future__ import annotations

import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from nasty_images import damaged_exif, noise

from vitcompress.core.images import open_image
from vitcompress.core.pillow import listening

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


def test_threads_are_heard_each_about_its_own_image(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index:02d}.jpg" for index in range(20)]
    for index, path in enumerate(paths):
        noise(seed=index).save(path, **({"exif": damaged_exif()} if index % 2 else {}))
    with listening() as heard, ThreadPoolExecutor(4) as pool:
        list(pool.map(open_image, paths))
    assert sorted(heard.images["Truncated File Read"]) == paths[1::2]


def test_other_warnings_go_where_they_went() -> None:
    before = list(warnings.filters), warnings.showwarning
    with pytest.warns(UserWarning, match="not about images"), listening() as heard:
        warnings.warn("not about images", stacklevel=1)
    assert (heard.images, heard.lines()) == ({}, [])
    with listening():
        pass
    assert (list(warnings.filters), warnings.showwarning) == before
