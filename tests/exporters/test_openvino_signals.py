"""OpenVINO and signals: what one open model leaves to a process when another is closed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")
PROGRAM = """
import os, signal, sys
from pathlib import Path
from vitcompress.exporters.runners.openvino import OpenvinoRunner

signal.signal(signal.SIGCHLD, lambda *_: None)  # as torch does for its loader processes
first, second = (OpenvinoRunner(Path(sys.argv[1])) for _ in range(2))
first.close()
second.close()
os.kill(os.getpid(), signal.SIGCHLD)
print("alive")
"""


def test_a_signal_finds_its_stack_after_two_models_are_closed_in_their_order(tmp_path: Path) -> None:
    """OpenVINO's CPU plugin brings a signal stack, and gives back the one that it found, were that freed or not."""
    import openvino as ov

    images = ov.opset13.parameter([-1, 3, 8, 8], ov.Type.f32)
    logits = ov.opset13.reduce_mean(images, ov.opset13.constant([2, 3]), False)
    path = tmp_path / "model.xml"
    ov.save_model(ov.Model([logits], [images]), str(path))
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PROGRAM, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
