"""`vitcompress.distill`, `fold` and `export` with networks and loaders that are a user's own."""

from __future__ import annotations

import doctest
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from pretend_target import PretendTarget, installed
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import vitcompress as vc
from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact
from vitcompress.exporters.targets import BuildOptions

SIZE = 16


class Mixer(nn.Module):
    """No network of timm: patches, blocks of a user's own kind, a mean and a classifier."""

    def __init__(self, width: int, depth: int, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.body = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.stem(images).flatten(2).transpose(1, 2)
        for block in self.body:
            tokens = tokens + block(tokens)
        logits: Tensor = self.out(self.norm(tokens).mean(1))
        return logits


def loader(first: int, count: int, batch: int = 32, shuffle: bool = False) -> DataLoader[Any]:
    digits = load_digits()
    pixels = torch.from_numpy(digits.images[first : first + count]).float()[:, None] / 16
    images = nn.functional.interpolate(pixels, size=(SIZE, SIZE)).repeat(1, 3, 1, 1)
    return DataLoader(
        TensorDataset(images, torch.from_numpy(digits.target[first : first + count]).long()), batch, shuffle
    )


def vit(width: int = 32, depth: int = 2) -> nn.Module:
    args = {"img_size": SIZE, "patch_size": 4, "embed_dim": width, "depth": depth, "num_heads": 2, "num_classes": 10}
    return timm.create_model("deit_tiny_patch16_224", **args)  # type: ignore[no-any-return]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the examples of the docstrings speak of, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    train, val = loader(0, 128, shuffle=True), loader(1000, 64)
    return {"vc": vc, "teacher": vit(48), "student": vit(16), "train": train, "val": val}


@pytest.mark.parametrize("name", ["distill", "fold", "pack"])
def test_an_example_without_a_run_gives_what_it_says(name: str, place: dict[str, Any]) -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(getattr(vc, name), name, globs=place)
    told: list[str] = []
    done = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=told.append)
    assert done.attempted > 0
    assert not told, "".join(told)


def test_a_student_of_no_known_family_learns_from_a_teacher_of_timm(place: dict[str, Any]) -> None:
    teacher, student = vit(48), Mixer(16, 2)
    before = [deepcopy(network.state_dict()) for network in (teacher, student)]
    found = vc.distill(
        teacher,
        student,
        loader(0, 1400, shuffle=True),
        loader(1400, 320),
        strategy="lift",
        epochs=6,
        student_taps=["body.1"],
        settings={"alpha": 0.0, "lr": 3e-3},
        output="out",
        progress=False,
    )
    assert found.record.val_top1_raw > 25  # of ten classes, after 258 steps
    assert any("spectral" in term for term in found.record.losses)
    for network, state in zip((teacher, student), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    images, labels = next(iter(loader(1400, 320, batch=320)))
    right = float((found.student(images).argmax(1) == labels).float().mean()) * 100
    chosen = found.record.val_top1_ema if found.record.chosen == "ema" else found.record.val_top1_raw
    assert right == pytest.approx(chosen, abs=0.4)  # one image of 320 may turn over with the size of the batch


def test_a_lift_of_own_networks_is_folded_and_exported_exactly(place: dict[str, Any]) -> None:
    found = vc.distill(
        Mixer(48, 3), Mixer(16, 2), loader(0, 64), loader(64, 64), epochs=1, output="out", progress=False,
        teacher_taps=["body.0", "body.2"], student_taps=["body.1"],
    )  # fmt: skip
    images = next(iter(loader(64, 64)))[0]
    folded = vc.fold(found)
    torch.testing.assert_close(folded(images), found.student(images), atol=2e-4, rtol=1e-4)
    with pytest.raises(vc.UsageError, match="Mixer is no lift"):
        vc.fold(Mixer(8, 1))
    (graph,) = vc.export(folded, "exported", images=images)
    session = onnxruntime.InferenceSession(Path("exported", "student.onnx"))
    logits = session.run(None, {"images": images.numpy()})[0]
    np.testing.assert_allclose(logits, folded(images).detach().numpy(), atol=1e-4)
    assert graph.file.path == "student.onnx"


class WrongTarget(PretendTarget):
    """One whose files hold other weights."""

    def build(self, graph: OnnxArtifact, options: BuildOptions) -> EngineArtifact:
        made = super().build(graph, options)
        path = options.file(graph, self.name)
        model = onnx.load(path)
        for weight in model.graph.initializer:
            if weight.data_type == onnx.TensorProto.FLOAT:
                weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 2, weight.name))
        onnx.save(model, path)
        return made


def test_what_else_is_built_of_own_networks_is_compared_with_torch(place: dict[str, Any]) -> None:
    images = next(iter(loader(64, 64)))[0]
    with installed(PretendTarget):
        graph, built = vc.export(Mixer(8, 1), "exported", targets=("onnx", "pretend"), images=images)
    assert isinstance(built, EngineArtifact)
    assert built.files[0].path == "export/student.pretend.engine"
    assert 0 <= max(built.max_logit_difference.values()) <= 1e-4
    assert isinstance(graph, OnnxArtifact)
    with (
        installed(WrongTarget),
        pytest.raises(vc.ResultError, match=r"pretend\.engine differ from torch's by .* more th"),
    ):
        vc.export(Mixer(8, 1), "exported", targets="pretend", images=images)


def test_functions_as_taps(place: dict[str, Any]) -> None:
    def last(network: Any, images: Tensor) -> Tensor:
        return network.stem(images)  # type: ignore[no-any-return]  # a map [B, D, H, W]

    found = vc.distill(
        Mixer(48, 1), Mixer(16, 1), loader(0, 64), loader(64, 32), epochs=1, output="out", progress=False,
        strategy="plain", teacher_taps=[last], student_taps=[last],
    )  # fmt: skip
    assert isinstance(found.student, Mixer)


def test_batches_of_a_list_train_too_and_a_second_call_goes_on(place: dict[str, Any]) -> None:
    train, val = list(loader(0, 96)), list(loader(96, 32))
    student, teacher = vit(16), vit(48)
    once = [
        vc.distill(teacher, student, train, val, epochs=2, output="same", progress=False, start="random") for _ in "ab"
    ]
    assert once[0].record.steps == once[1].record.steps == 6
    state = [found.student.state_dict() for found in once]
    assert all(torch.equal(value, state[1][name]) for name, value in state[0].items())
    taps = {"teacher_taps": ["blocks.0"], "student_taps": ["blocks.0"]}
    other = vc.distill(teacher, student, train, val, epochs=2, output="same", progress=False, start="random", **taps)
    assert other.record.losses != once[0].record.losses  # not what was trained with other taps


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"strategy": "widelast"}, "give plain or lift, or use vitcompress.run"),
        ({"student": Mixer(16, 1)}, "name what is compared.*student_taps"),
        ({"student": Mixer(16, 1, 7)}, "10 classes and the student 7"),
        ({"settings": {"batch_size": 4}}, "batch_size, which the loaders"),
        ({"train": [(torch.zeros(2, 3, 16, 16), torch.zeros(2, 2))]}, "give pairs of images"),
        ({"train": iter([])}, "has no length"),
    ],
    ids=["strategy", "no taps", "classes", "batch size", "labels", "generator"],
)
def test_what_does_not_fit_is_told_in_one_sentence(
    change: dict[str, Any], sentence: str, place: dict[str, Any], tmp_path: Path
) -> None:
    given = {name: place[name] for name in ("teacher", "student", "train", "val")} | {"epochs": 1, "progress": False}
    with pytest.raises(vc.UsageError, match=sentence):
        vc.distill(**{**given, **change})
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_ones_own_is_analysed_on_given_images(place: dict[str, Any]) -> None:
    images = next(iter(loader(0, 64, batch=64)))[0]
    found = vc.analyze(Mixer(16, 3), images, taps=["body.0", "body.2"], progress=False)
    assert (found.folder / "figures" / "rank-teacher.png").is_file() or list((found.folder / "figures").iterdir())
    of_loader = vc.analyze(Mixer(16, 3), loader(0, 64), taps=["body.2"], output="other", progress=False)
    assert of_loader.folder == Path("other/analysis")
    with pytest.raises(vc.UsageError, match="name what is compared"):
        vc.analyze(Mixer(16, 3), images, progress=False)
    with pytest.raises(vc.UsageError, match="images that are given"):
        vc.analyze(Mixer(16, 3))
