"""The door for targets: what every one of them gives, and one that another package adds, from end to end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from pretend_target import PretendTarget, installed

from vitcompress.core.artifact_records import OnnxArtifact, Precision
from vitcompress.core.errors import EnvironmentLacksError, UsageError
from vitcompress.core.files import is_intact, reference
from vitcompress.core.records import Cost
from vitcompress.exporters import memory, targets
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.exporters.targets import BuildOptions

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pretend() -> Iterator[None]:
    with installed(PretendTarget):
        yield


def graph_in(root: Path, onnx_file: Path) -> OnnxArtifact:
    (root / "export").mkdir()
    path = root / "export" / "student.onnx"
    path.write_bytes(onnx_file.read_bytes())
    cost, checks = Cost(parameters=1, macs=1), {"max_logit_difference": {}, "tolerance": 1e-3, "seconds": 1.0}
    return OnnxArtifact(name="student", file=reference(path, root), cost=cost, nodes=1, opset=20, **checks)


@pytest.mark.parametrize("name", targets.BUILT_IN)
def test_every_target_says_what_a_reader_needs(name: str) -> None:
    target = targets.get(name)
    assert target.name == name
    assert (ROOT / target.page).is_file()
    assert set(target.precisions) <= set(get_args(Precision))
    found = target.available()
    assert found.yes or "pip install" in found.why or "GPU" in found.why
    if found.yes:
        target.require()
    else:
        with pytest.raises(EnvironmentLacksError, match=r"run pip install|needs an NVIDIA GPU"):
            target.require()


def test_an_unknown_target_is_refused_with_those_there_are(pretend: None) -> None:
    with pytest.raises(UsageError, match=r"'abacus' is not known; choose from onnx, tensorrt, .*, pretend"):
        targets.get("abacus")


def test_another_packages_target_is_built_opened_and_run(
    pretend: None, tmp_path: Path, onnx_file: Path, images: NDArray[np.float32]
) -> None:
    assert list(targets.registered()) == [*targets.BUILT_IN, "pretend"]
    target, graph = targets.get("pretend"), graph_in(tmp_path, onnx_file)
    made = target.build(graph, BuildOptions(tmp_path, max_batch=16))
    assert (made.target, made.precision, made.bytes) == ("pretend", "fp32", graph.file.bytes)
    assert [one.path for one in made.files] == ["export/student.pretend.engine"]
    assert is_intact(made.files[0], tmp_path)
    with target.open(tmp_path / made.files[0].path) as runner, OnnxRunner(onnx_file) as reference_runner:
        np.testing.assert_array_equal(runner.infer(images), reference_runner.infer(images))
    assert memory._measured("pretend", tmp_path / made.files[0].path, 2, 1).peak_rss_bytes > 0


def broken() -> None:
    raise ImportError("no module named warp")


class Taken(PretendTarget):
    name = "onnx"


@pytest.mark.parametrize(
    ("loaded", "words"),
    [
        (broken, r"target 'pretend' .* cannot be loaded \(no module named warp\)"),
        (Taken, "'onnx' of .* name that is taken"),
    ],
)
def test_a_target_that_cannot_be_added_is_told(loaded: object, words: str) -> None:
    with installed(loaded), pytest.raises(UsageError, match=words):
        targets.registered()
