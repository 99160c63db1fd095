"""Teachers of every kind x students of every kind x strategies: trained a little, folded, fused, exported.

The sweep has a network of every module of timm.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from vitcompress.core.errors import UsageError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import Graph, ModelSpec
from vitcompress.exporters.differences import max_difference
from vitcompress.exporters.onnx import onnx_from_module
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.stages.distill.config import DistillConfig, FeatureTerm
from vitcompress.stages.distill.job import with_taps
from vitcompress.stages.distill.losses.terms import distillation_terms
from vitcompress.stages.distill.model import AdaptedTeacher, FrozenTeacher, tap_shapes
from vitcompress.stages.distill.pairs import layer_pairs, student_layers, teacher_layers
from vitcompress.stages.fold.stage import folded_from_lift
from vitcompress.stages.models.build import build_model, cost_of, input_size, logits_and_taps, tapped_block
from vitcompress.stages.models.geometry import REFUSALS, at_size, send_empty_image, shape_by_name
from vitcompress.stages.models.students import LiftStudent, taps_alone
from vitcompress.stages.models.uniform import parameters_of
from vitcompress.stages.rewrites.deploy import deployed
from vitcompress.stages.rewrites.fuse import FUSED, fused
from vitcompress.stages.teacher.probe import linear_heads
from vitcompress.stages.training.labels import LabelLoss

CLASSES, WIDE = 5, 24
HALF = (0.5, 0.5, 0.5)
SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 24, "depths": (1, 2), "num_heads": (3, 6)}
TEACHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit with registers": ("vit_small_patch14_reg4_dinov2", {**SMALL, "img_size": 42, "patch_size": 14}),
    "distilled": ("deit_tiny_distilled_patch16_224", SMALL),
    "siglip tower": ("vit_base_patch16_siglip_224", SMALL),  # pools by attention
    "swin": ("swin_tiny_patch4_window7_224", SWIN),
    "convnext": ("test_convnext", {}),
    "efficientnet": ("test_efficientnet", {}),
    "hybrid": ("test_maxvit", {}),
}
STUDENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "deit": ("deit_tiny_patch16_224", SMALL),
    "swin": TEACHERS["swin"],
    "mobilenetv4": ("mobilenetv4_conv_small_050", {}),
    "repvit": ("repvit_m0_9", {"embed_dim": (8, 16, 24, 32), "depth": (1, 1, 2, 1)}),
    "fastvit": ("fastvit_t8", {"embed_dims": (32, 32, 64, 64), "layers": (1, 1, 1, 1)}),
    "efficientvit": (
        "efficientvit_b0",
        {"widths": (8, 16, 16, 32, 32), "depths": (1,) * 5, "head_widths": (48, 64), "head_dim": 8},
    ),
    "tinyvit": (
        "tiny_vit_5m_224",
        {"embed_dims": (16, 32, 32, 64), "depths": (1,) * 4, "num_heads": (1, 2, 2, 4), "window_sizes": (7,) * 4},
    ),
    "convnext": ("test_convnext", {}),
    "resnet": ("test_resnet", {}),
}
EXPORTED = ("mobilenetv4", "repvit", "convnext")
"""Students that are exported in every run of the tests, folded; the others are a sweep."""
REPARAMETERISED = ("repvit", "fastvit", "tinyvit")
FEATURES = (FeatureTerm(kind="spectral"), FeatureTerm(kind="mse", pairs=((0, 0),), match="projector"))


def at(network: tuple[str, dict[str, Any]], size: int = 64) -> tuple[str, dict[str, Any]]:
    arch, args = network
    return arch, args if "img_size" in args else at_size(arch, args, size)


def built(network: tuple[str, dict[str, Any]], graph: Graph, **changes: Any) -> tuple[Any, int]:
    """The network with every parameter and statistic random, in eval mode, and the side of its input."""
    arch, args = network
    lifted = None if graph == "plain" else WIDE
    torch.manual_seed(0)
    model = build_model(
        ModelSpec(arch=arch, args=args, num_classes=CLASSES, graph=graph, lift_width=lifted, **changes)
    ).eval()
    with torch.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif name.endswith("running_mean") or value.requires_grad:
                value.add_(0.05 * torch.randn_like(value))
    return model, input_size(args, model.base.vit if isinstance(model, LiftStudent) else model)


@cache
def teacher_of(name: str) -> tuple[nn.Module, int, int]:
    """The network, the side of its input and its depth."""
    network = at(TEACHERS[name])
    model, size = built(network, "plain")
    return model, size, shape_by_name(*network).depth


@pytest.mark.parametrize("graph", ["plain", "lift-kept"])
@pytest.mark.parametrize("name", STUDENTS)
def test_every_student_learns_from_every_teacher(name: str, graph: Graph) -> None:
    """Taps meet on the student's grid whichever is the finer one, and every parameter gets a gradient."""
    config = DistillConfig(features=FEATURES, alpha=0.5)
    student = at(STUDENTS[name])
    for teacher_name in TEACHERS if graph == "lift-kept" else ("distilled", "swin", "efficientnet"):
        network, size = built(student, graph)
        teacher, own_size, depth = teacher_of(teacher_name)
        pairs = layer_pairs(config, shape_by_name(*student).depth, depth)
        ours = tap_shapes(network, size, student_layers(pairs))
        tapped = with_taps(network, pairs, ours, tap_shapes(teacher, own_size, teacher_layers(pairs))).train()
        specs = [PreprocessSpec(size=side, mean=HALF, std=HALF) for side in (own_size, size)]
        frozen = FrozenTeacher(AdaptedTeacher(teacher, teacher_layers(pairs), *specs))
        optimizer = torch.optim.SGD(tapped.parameters(), lr=1e-3)
        images, labels = torch.randn(4, 3, size, size), torch.arange(4)
        for _ in range(2):
            optimizer.zero_grad()
            logits, taps = tapped(images)
            answers, theirs = frozen(images)
            by_layer = dict(zip(teacher_layers(pairs), theirs, strict=True))
            together = [(pair, tap, by_layer[pair.teacher]) for pair, tap in zip(pairs, taps, strict=True)]
            terms = distillation_terms(config, LabelLoss(), logits, answers, labels, together)
            loss = torch.stack(list(terms.values())).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            assert [own for own, one in tapped.named_parameters() if one.grad is None] == [], teacher_name
            optimizer.step()
        assert bool(loss.isfinite()), teacher_name
        assert all(torch.is_tensor(one) for one in tapped.meeting_parameters())
        assert ours[pairs[0].student][1] == (WIDE if graph == "lift-kept" else shape_by_name(*student).width)


@pytest.mark.parametrize("name", STUDENTS)
def test_a_lift_is_the_projection_of_the_last_map_before_pooling(name: str) -> None:
    """The same network, uncut, gives the map; the fold is exact in float64 and within rounding in float32."""
    arch, args = at(STUDENTS[name])
    model, size = built((arch, args), "lift-kept")
    whole: Any = build_model(ModelSpec(arch=arch, args=args, num_classes=CLASSES)).eval()
    missing = whole.load_state_dict(model.base.vit.state_dict(), strict=False)
    assert missing.unexpected_keys == []  # the lift's base is the network itself, without some of its parts
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        if name == "deit":
            (found,) = taps_alone(whole, images, (1,))
        else:
            found = whole.forward_features(images)
            found = found.permute(0, 3, 1, 2) if name == "swin" else found
        lifted = model.norm(model.projector(found.flatten(2).transpose(1, 2)))
        torch.testing.assert_close(model(images), model.head(lifted.mean(dim=1)), rtol=1e-4, atol=1e-5)
        for dtype, most in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
            kept, x = model.to(dtype), images.to(dtype)
            folded = folded_from_lift(kept)[0]
            assert float((folded(x) - kept(x)).abs().max() / kept(x).abs().max()) < most


@pytest.mark.parametrize(
    ("name", "graph"),
    [
        pytest.param(name, graph, marks=[] if graph == "lift-folded" and name in EXPORTED else pytest.mark.sweep)
        for name in STUDENTS
        for graph in ("lift-folded", "lift-kept", "plain")
    ],
)
def test_every_student_is_exported_with_torchs_logits(name: str, graph: str, tmp_path: Path) -> None:
    model, size = built(at(STUDENTS[name]), "plain" if graph == "plain" else "lift-kept")
    model = folded_from_lift(model)[0] if graph == "lift-folded" else model
    spec = PreprocessSpec(size=size, mean=HALF, std=HALF)
    done = deployed(model, spec, "float")
    assert done.difference < 1e-12
    assert (FUSED in done.applied) == (name in REPARAMETERISED)
    before, after = cost_of(model, size), cost_of(fused(model), size)
    assert (after.parameters < before.parameters) == (name in REPARAMETERISED)
    assert name == "deit" or cost_of(done.module, size) == after  # what is deployed costs what is recorded
    onnx_from_module(done.module, tmp_path / "model.onnx", size=size, max_batch=4)
    images = torch.randn(3, 3, size, size)
    with torch.no_grad():
        largest = float(model(images).abs().max())
    with OnnxRunner(tmp_path / "model.onnx") as runner:
        found = max_difference(runner, model, images.numpy(), (1, 3))
    assert max(found.values()) < 1e-4 * max(1.0, largest)


def test_a_student_that_cannot_be_cut_to_its_last_map_is_refused_and_trains_as_it_is() -> None:
    network = ("crossvit_tiny_240", {"depth": ((1, 1, 0),) * 3})
    with pytest.raises(UsageError, match=r"'lift' reads the last map .* crossvit_tiny_240 cannot be cut .* plain"):
        built(network, "lift-kept")
    assert built(network, "plain")[0](torch.zeros(1, 3, 240, 240)).shape == (1, CLASSES)


@pytest.mark.parametrize(("name", "count"), [("convnext", 1), ("efficientnet", 1), ("hybrid", 1), ("distilled", 2)])
def test_a_linear_probe_fits_into_the_heads_of_teachers_of_other_kinds(name: str, count: int) -> None:
    model, size, _ = teacher_of(name)
    assert len(linear_heads(model, size)) == count


def smallest(module: str) -> tuple[str, dict[str, Any]]:
    """A network of a module of timm, of few parameters by its name, at the least of some sizes that it takes."""
    names = timm.list_models(module=module)
    words = ("test_", "atto", "femto", "pico", "nano", "xxs", "tiny", "_s0", "_t0", "small", "_xs", "_s")
    arch = min(names, key=lambda name: (next((at for at, one in enumerate(words) if one in name), 99), len(name)))
    for size in (32, 64, 128):
        try:
            args = at_size(arch, {}, size)
            send_empty_image(arch, args, size)
            return arch, args
        except (UsageError, *REFUSALS):
            continue
    return arch, {}


@pytest.mark.sweep
@pytest.mark.parametrize("module", [name for name in timm.list_modules() if timm.list_models(module=name)])
def test_every_module_of_timm_is_tapped_and_lifted(module: str) -> None:
    arch, args = network = smallest(module)
    if parameters_of(ModelSpec(arch=arch, args=args, num_classes=CLASSES)) > 10**8:
        pytest.skip(f"{arch} is too large for a sweep")
    shape, (model, size) = shape_by_name(arch, args), built(network, "plain")
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        logits, taps = logits_and_taps(model, images, tuple(range(shape.depth)))
        torch.testing.assert_close(logits, model(images))
    assert logits.shape == (2, CLASSES)
    assert {tap.ndim for tap in taps} == {4}
    assert taps[-1].shape[1] == shape.width
    assert all(next(tapped_block(model, layer).parameters()).requires_grad for layer in range(shape.depth))
    spec = PreprocessSpec(size=size, mean=HALF, std=HALF)
    assert deployed(model, spec, "float").difference < 1e-12
    if module == "crossvit":
        return
    lift = built(network, "lift-kept")[0].train()
    both: tuple[Tensor, list[Tensor]] = logits_and_taps(lift, torch.randn(4, 3, size, size), (0, shape.depth - 1))
    both[0].square().sum().backward()  # type: ignore[no-untyped-call]
    assert [name for name, one in lift.named_parameters() if one.grad is None] == []
    assert both[1][1].shape[1] == WIDE
