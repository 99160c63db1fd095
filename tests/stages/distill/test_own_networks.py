"""A distillation of networks and loaders that come from no record."""

from __future__ import annotations

import torch
from distill_run import config
from safetensors.torch import load_file
from small_run import SPEC, TEACHER, TEACHER_ARGS, seeded_model, student_spec
from torch.utils.data import DataLoader, TensorDataset

from vitcompress.core.context import Context
from vitcompress.core.records import ModelSpec
from vitcompress.stages.distill.job import Loaders, Networks
from vitcompress.stages.distill.model import AdaptedTeacher, FrozenTeacher, TappedStudent
from vitcompress.stages.distill.pairs import layer_pairs, teacher_layers
from vitcompress.stages.distill.stage import distil


def test_networks_and_loaders_from_outside_are_trained(context: Context) -> None:
    settings, spec = config(batch_size=8), student_spec("plain")
    pairs = layer_pairs(settings, 2, 3)
    student = seeded_model(spec)
    teacher = seeded_model(ModelSpec(arch=TEACHER, args=TEACHER_ARGS, num_classes=10), 1)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    frozen = FrozenTeacher(AdaptedTeacher(teacher, teacher_layers(pairs), own=SPEC, student=SPEC))
    images = TensorDataset(torch.randn(24, 3, 32, 32), torch.arange(24) % 10)
    loaders = Loaders(DataLoader(images, batch_size=8, shuffle=True), DataLoader(images, batch_size=8))
    record = distil(settings, Networks(pairs, TappedStudent(student, pairs), frozen), loaders, spec, context)
    assert (record.model, record.epochs, record.steps, record.cache) == (spec, 2, 6, None)
    assert set(record.losses) == {"labels", "soft_logits", "spectral 1<-2"}
    written = load_file(context.run.root / record.weights.path)
    assert written.keys() == before.keys()
    assert not any(torch.equal(written[name], before[name]) for name in before)
