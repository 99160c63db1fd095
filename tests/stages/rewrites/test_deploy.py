"""What is deployed: the same logits for every family, told in words, exported to a clean graph, built."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from engine_graphs import build
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vitcompress.core.artifact_records import Input
from vitcompress.core.errors import ResultError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import ModelSpec
from vitcompress.exporters.differences import max_difference
from vitcompress.exporters.onnx import onnx_from_module
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.exporters.tensorrt import installed_flavours
from vitcompress.stages.fold.stage import folded_from_lift
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.students import LiftStudent
from vitcompress.stages.rewrites import deploy
from vitcompress.stages.rewrites.deploy import deployed
from vitcompress.stages.rewrites.lower import NotTakenApart, network_from_module
from vitcompress.stages.rewrites.patches import PixelInput

SIZE, CLASSES = 32, 10
SPEC = PreprocessSpec(size=SIZE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
SHAPE: dict[str, Any] = {"img_size": SIZE, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
SWIN = {"img_size": SIZE, "patch_size": 2, "window_size": 4, "embed_dim": 24, "depths": (1, 2), "num_heads": (3, 6)}
SCALED = {"init_values": 0.1}
DEIT, EVA, BEIT = "deit_tiny_patch16_224", "eva02_tiny_patch14_224", "beitv2_base_patch16_224"
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "deit": (DEIT, SHAPE),
    "deit3": ("deit3_small_patch16_224", {**SHAPE, **SCALED}),
    "distilled": ("deit_tiny_distilled_patch16_224", SHAPE),
    "vit mean": ("vit_small_patch16_224", {**SHAPE, "global_pool": "avg"}),
    "vit qk_norm": ("vit_small_patch16_224", {**SHAPE, "qk_norm": True}),
    "vit inner norm": ("vit_small_patch16_224", {**SHAPE, "scale_attn_norm": True, "scale_mlp_norm": True}),
    "vit registers": ("vit_small_patch16_224", {**SHAPE, "reg_tokens": 2}),
    "vit no bias": ("vit_small_patch16_224", {**SHAPE, "qkv_bias": False}),
    "beit": ("beit_base_patch16_224", {**SHAPE, **SCALED}),
    "beit token": (BEIT, {**SHAPE, **SCALED, "global_pool": "token"}),
    "eva": (EVA, SHAPE),
    "eva token": (EVA, {**SHAPE, "global_pool": "token"}),
    "cait": ("cait_xxs24_224", {**SHAPE, **SCALED}),
    "widelast deit": (DEIT, SHAPE),
    "widelast deit 2 blocks": (DEIT, {**SHAPE, "num_heads": 6}),
    "widelast beit token": (BEIT, {**SHAPE, **SCALED, "global_pool": "token"}),
    "widelast eva by count": (EVA, SHAPE),
    "widelast cait": ("cait_xxs24_224", {**SHAPE, **SCALED}),
    "lift kept": (DEIT, SHAPE),
    "lift folded": (DEIT, SHAPE),
    "lift folded cait": ("cait_xxs24_224", {**SHAPE, **SCALED}),
    "swin": ("swin_tiny_patch4_window7_224", SWIN),
    "resnet": ("resnet10t", {}),
}
CLASS_TOKEN = ("last block for the class token alone", "no keys and values where the class token alone asks")
ATTENTION, CONSTANTS = "attention's scale and biases in its weights", "positions and class token as constants"
LAYER_SCALE, FIRST = "LayerScale in the projections", "tokens before images in memory"
PIXELS = "normalisation of the pixels in the patch embedding"


def network(name: str) -> nn.Module:
    """The named network, float64, eval mode, every parameter random."""
    arch, args = NETWORKS[name]
    kind = name.partition(" ")[0]
    graph: Any = {"widelast": "widelast", "lift": "lift-kept"}.get(kind, "plain")
    heads: Any = "count" if "count" in name else "size"
    width, blocks = None if graph == "plain" else 96, 2 if "2 blocks" in name else 1
    wide: dict[str, Any] = {"lift_width": width, "wide_heads": heads, "wide_blocks": blocks}
    spec = ModelSpec(arch=arch, args=args, num_classes=CLASSES, graph=graph, **wide)
    model = build_model(spec)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    if "folded" in name:
        assert isinstance(model, LiftStudent)
        model = folded_from_lift(model)[0]
    return model.double().eval()


def images(count: int = 3) -> Tensor:
    """Normalised images ``[count, 3, SIZE, SIZE]``, float64."""
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@torch.no_grad()
def change(one: nn.Module, other: nn.Module, x: Tensor) -> float:
    """Largest difference of logits, relative to the largest of the first's."""
    expected, found = one(x), other(x)
    assert expected.shape == found.shape == (len(x), CLASSES)
    assert float(expected.std(dim=0).min()) > 1e-6  # images get different logits, or agreeing would say nothing
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("input", ["float", "uint8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_is_deployed_exactly(name: str, input: Input) -> None:
    model = network(name)
    before = deepcopy(model.state_dict())
    done = deployed(model, SPEC, input)
    assert done.difference < 1e-10
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert {parameter.dtype for parameter in done.module.parameters()} == {torch.float32}
    assert not done.module.training
    x: Any = images() if input == "float" else torch.randint(0, 256, (3, SIZE, SIZE, 3), dtype=torch.uint8)
    original = model if input == "float" else PixelInput(model, SPEC)
    assert change(original, done.module.double(), x) < 1e-4  # weights were rounded to float32


@pytest.mark.parametrize(
    ("name", "input", "words"),
    [
        ("widelast deit", "float", (ATTENTION, *CLASS_TOKEN, CONSTANTS, FIRST)),
        ("deit3", "uint8", (LAYER_SCALE, ATTENTION, *CLASS_TOKEN, PIXELS, CONSTANTS, FIRST)),
        ("vit qk_norm", "float", (ATTENTION, CLASS_TOKEN[0], CONSTANTS, FIRST)),
        (
            "distilled",
            "float",
            (ATTENTION, "last block for the first 2 tokens alone", CLASS_TOKEN[1], CONSTANTS, FIRST),
        ),
        ("lift folded", "float", (ATTENTION, "last block for the patch tokens alone", CONSTANTS, FIRST)),
        ("cait", "float", (LAYER_SCALE, ATTENTION, CLASS_TOKEN[1], CONSTANTS, FIRST)),
        ("swin", "float", ("attention's scale in its weights",)),
    ],
)
def test_words_tell_what_was_done(name: str, input: Input, words: tuple[str, ...]) -> None:
    done = deployed(network(name), SPEC, input)
    assert (done.applied, done.skipped) == (words, ())


@pytest.mark.parametrize("name", ["deit", "widelast deit", "distilled", "beit token", "vit qk_norm", "lift folded"])
def test_tokens_that_nothing_reads_cost_nothing(name: str) -> None:
    def macs(module: nn.Module) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(images(1).float())
        return int(counter.get_total_flops()) // 2

    model = network(name)
    share = macs(deployed(model, SPEC, "float").module) / macs(network_from_module(model).float())
    assert share < (1 if name == "lift folded" else 0.85)


@pytest.mark.parametrize("input", ["float", "uint8"])
def test_networks_that_are_not_known_or_not_to_be_rewritten_are_left_alone(input: Input) -> None:
    unknown, off = deployed(network("resnet"), SPEC, input), deployed(network("deit"), SPEC, input, rewrite=False)
    assert unknown.applied == off.applied == ()
    assert unknown.skipped[0] == "every rewrite: ResNet is not a ViT, DeiT, BEiT, EVA or CaiT"
    for done, name in ((unknown, "ResNet"), (off, "VisionTransformer")):
        before = done.module.network if input == "uint8" else done.module
        assert ("normalisation of the pixels: it stays before the network" in done.skipped) == (input == "uint8")
        assert type(before).__name__ == name


@pytest.mark.parametrize("broken", ["a rewrite", "the network"])
def test_other_logits_are_refused(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(given: Any) -> bool:
        with torch.no_grad():
            given.blocks[0].mlp.fc1.bias[0] += 1e-5
        return True

    model: Any = network("deit")
    if broken == "a rewrite":
        monkeypatch.setattr(deploy, "add_bias_to_positions", wrong)
    else:
        model.head.bias.data[3] = float("nan")
    with pytest.raises(ResultError, match=r"answers differently .*export\.rewrites=false"):
        deployed(model, SPEC, "float")


class Doubled(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor, **more: Any) -> torch.Tensor:
        return 2 * self.inner(x, **more)


@pytest.mark.parametrize("part", ["attn", "mlp", "ls1", "block", "patch_embed", "pool", "network"])
def test_a_part_that_is_not_known_is_refused_by_name(part: str) -> None:
    model: Any = network("deit3")
    if part == "patch_embed":
        model.patch_embed = Doubled(model.patch_embed)
    elif part == "block":
        model.blocks[1] = Doubled(model.blocks[1])
    elif part == "pool":
        model.global_pool = "max"
    elif part == "network":
        model = Doubled(model)
    else:
        setattr(model.blocks[0], part, Doubled(getattr(model.blocks[0], part)))
    with pytest.raises(NotTakenApart, match="max" if part == "pool" else "Doubled"):
        network_from_module(model)


def exported(name: str, input: Input, folder: Path) -> tuple[nn.Module, Path]:
    done = deployed(network(name), SPEC, input).module
    path = folder / "model.onnx"
    onnx_from_module(done, path, size=SIZE, max_batch=8, input=input)
    return done, path


SEVERAL = (
    ("widelast deit", "float"), ("cait", "float"), ("swin", "uint8"),
    ("widelast deit", "uint8"), ("lift folded", "float"), ("beit token", "float"), ("eva", "uint8"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "input"), [*SEVERAL[:3], *(pytest.param(*one, marks=pytest.mark.sweep) for one in SEVERAL[3:])]
)
def test_graph_is_clean_right_at_every_batch_and_builds(name: str, input: Input, tmp_path: Path) -> None:
    module, path = exported(name, input, tmp_path)
    graph = onnx.load(path).graph
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}
    dims = [one.dim_param or one.dim_value for one in graph.input[0].type.tensor_type.shape.dim]
    assert dims == (["batch", 3, SIZE, SIZE] if input == "float" else ["batch", SIZE, SIZE, 3])
    x = images(5).float() if input == "float" else torch.randint(0, 256, (5, SIZE, SIZE, 3)).byte()
    with torch.inference_mode():
        largest = float(module(x).abs().max())
    with OnnxRunner(path) as runner:
        found = max_difference(runner, module, x.numpy(), (1, 2, 5))
    assert max(found.values()) < 1e-4 * max(1.0, largest)
    if "tensorrt-rtx" not in installed_flavours():
        pytest.skip("the graph is right; tensorrt-rtx is not installed to build it")
    build(path, tmp_path)
    assert (tmp_path / "model.engine").stat().st_size > 10_000


def test_linear_layers_are_gemms_with_their_bias_and_heads_are_copied_once(tmp_path: Path) -> None:
    _, path = exported("deit", "float", tmp_path)
    kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
    # One whole block: query, key, value, projection, MLP. The last: query, projection, MLP. The classifier.
    assert kinds["Gemm"] == 6 + 4 + 1
    assert kinds["MatMul"] == 2 + 4
    assert kinds["Expand"] <= 1
    assert kinds["Concat"] <= 2  # the class token, and the shape it is expanded to
    assert (kinds["LayerNormalization"], kinds["Gelu"]) == (5, 2)
