"""A step of distillation, the teacher live beside it, reads nothing from its device; the teacher's own stream."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from distill_run import config
from reading_guard import guarded
from small_run import LIGHT_AUGMENT, SPEC, seeded_model

from vitcompress.core.context import Context
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import ModelSpec
from vitcompress.stages.distill import stage
from vitcompress.stages.distill.config import FeatureTerm
from vitcompress.stages.distill.job import Inputs
from vitcompress.stages.distill.model import AdaptedTeacher
from vitcompress.stages.training.device import Beside

FEATURES = (FeatureTerm(), FeatureTerm(kind="mse", pairs=((0, 0), (1, 2)), match="projector"))


@pytest.mark.parametrize("views", [0, 1], ids=["live teacher", "cached teacher"])
def test_no_step_waits_and_the_student_is_that_of_a_cpus_way(
    inputs: Inputs, context: Context, monkeypatch: pytest.MonkeyPatch, views: int
) -> None:
    """With taps, errors of the teacher replaced, balanced terms and mixup."""
    settings = config(
        features=FEATURES,
        balance="gradients",
        teacher_errors="replace",
        views=views,
        batch_size=20,
        ema_decay=0.9,
        augment=LIGHT_AUGMENT.model_copy(update={"mixup": 0.8, "cutmix": 1.0}),
    )
    plain = stage.run(settings, inputs, context)
    (context.run.root / plain.weights.path).unlink()
    waiting = guarded(monkeypatch)
    again = stage.run(settings, inputs, Context(**{**vars(context), "fingerprint": "another"}))
    assert waiting.steps == again.steps == 8
    assert again.identity() == plain.identity()  # bit by bit: the weights' digest is in it


def test_resizing_is_compiled_together_with_the_teacher() -> None:
    """One graph, nothing of it in Python."""
    own = PreprocessSpec(size=48, mean=(0.4,) * 3, std=(0.2,) * 3)
    network = seeded_model(
        ModelSpec(arch="vit_tiny_patch16_224", args={"img_size": 48, "patch_size": 8, "embed_dim": 24, "depth": 2,
                                                     "num_heads": 3}, num_classes=10)
    )  # fmt: skip
    teacher = AdaptedTeacher(network, (1,), own=own, student=SPEC)
    images = torch.randn(2, 3, 32, 32)
    wanted = teacher(images)  # finds the family too, as a run does before it compiles
    compiled: Any = torch.compile(teacher, backend="eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(images), wanted)


class Stream:
    """Notes who waits for whom, and whose memory is held."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    def wait_stream(self, other: Stream) -> None:
        self.notes.append(f"{self.name} waits for {other.name}")


class OnGpu:
    """A tensor of a GPU, as far as streams see it."""

    device = torch.device("cuda")

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    def record_stream(self, stream: Stream) -> None:
        self.notes.append(f"{self.name} is held for {stream.name}")


def test_a_teacher_on_its_own_stream_waits_for_its_images_and_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    main, side = Stream("main", notes), Stream("side", notes)
    within: list[Stream] = []

    class Within:
        def __init__(self, stream: Stream) -> None:
            self.stream = stream

        def __enter__(self) -> None:
            within.append(self.stream)

        def __exit__(self, *_: object) -> None:
            within.pop()

    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: main)
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: side)
    monkeypatch.setattr(torch.cuda, "stream", Within)

    def teacher(images: Any) -> Any:
        notes.append(f"the teacher runs on {within[-1].name}")
        return None, [OnGpu("tap", notes)]

    images: Any = OnGpu("images", notes)
    answers = Beside().start(teacher, images)
    notes.append("the student runs")
    assert answers()[1][0].name == "tap"  # type: ignore[attr-defined]
    assert notes == [
        "side waits for main",
        "the teacher runs on side",
        "images is held for side",
        "the student runs",
        "main waits for side",
        "tap is held for main",
    ]
