"""Lifts as networks that timm alone builds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from small_run import SPEC, seeded_model

from vitcompress.core.records import ModelSpec
from vitcompress.stages.fold.stage import folded_from_lift
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.origins import resolve_origin
from vitcompress.stages.models.students import FoldedLift
from vitcompress.stages.models.timm_files import save_timm
from vitcompress.stages.models.weights import load_checkpoint
from vitcompress.stages.rewrites.stock import timm_from_folded

TINY: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
LOADED_ELSEWHERE = """
import sys
class Refuses:
    def find_spec(self, name, path=None, target=None):
        assert name.partition(".")[0] != "vitcompress"
sys.meta_path.insert(0, Refuses())
import timm
from safetensors.torch import load_file
given = load_file("given.safetensors")
network = timm.create_model(f"local-dir:{sys.argv[1]}", pretrained=True).eval()
print(float((network(given["images"]) - given["logits"]).abs().max()))
"""


def lift(arch: str, width: int = 48, **args: Any) -> tuple[FoldedLift, torch.nn.Module, ModelSpec]:
    """A folded lift, the lift that it was made of, and this one's spec."""
    spec = ModelSpec(arch=arch, args=TINY | args, num_classes=7, graph="lift-kept", lift_width=width)
    kept = seeded_model(spec)
    return folded_from_lift(kept)[0], kept, spec  # type: ignore[arg-type]  # a lift is what was asked for


def images(channels: int = 3) -> torch.Tensor:
    return torch.randn(6, channels, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("arch", "width", "args"),
    [
        ("deit_tiny_patch16_224", 48, {}),
        ("deit_tiny_patch16_224", 16, {}),  # a singular G
        ("deit3_small_patch16_224", 48, {"num_heads": 4, "in_chans": 2}),  # LayerScale
        ("vit_small_patch16_224", 48, {"class_token": False, "global_pool": "avg", "qkv_bias": False}),
        ("vit_small_patch16_224", 48, {"reg_tokens": 2, "act_layer": "silu", "mlp_ratio": 1.0}),
    ],
)
@torch.no_grad()
def test_timm_computes_a_lift(arch: str, width: int, args: dict[str, Any]) -> None:
    folded, kept, spec = lift(arch, width, **args)
    before = {name: tensor.clone() for name, tensor in folded.state_dict().items()}
    found = timm_from_folded(folded, spec)
    assert found is not None
    network = timm.create_model(arch, num_classes=7, **found[0]).eval()
    network.load_state_dict(found[1])
    given = images(args.get("in_chans", 3))
    expected = kept(given)
    assert float((network(given) - expected).abs().max()) < 3e-6 * float(expected.abs().max())
    halved = network.bfloat16()(given.bfloat16()).float() - expected
    usual = kept.bfloat16()(given.bfloat16()).float() - expected
    assert float(halved.square().mean()) < 9 * float(usual.square().mean()) + 1e-6
    assert all(torch.equal(tensor, before[name]) for name, tensor in folded.state_dict().items())


@torch.no_grad()
def test_a_stream_far_from_zero_is_read_with_its_mean() -> None:
    folded, _, spec = lift("deit_tiny_patch16_224")
    vit: Any = folded.base.vit
    vit.patch_embed.proj.bias += 3  # which no LayerNorm of the blocks sees, and the projector does
    shifted = folded(images())
    found = timm_from_folded(folded, spec)
    assert found is not None
    network = timm.create_model(spec.arch, num_classes=7, **found[0]).eval()
    network.load_state_dict(found[1])
    assert float((network(images()) - shifted).abs().max()) < 1e-5 * float(shifted.abs().max())
    vit.patch_embed.proj.bias -= 3
    assert float((folded(images()) - shifted).abs().max()) > 1e-2


@pytest.mark.parametrize(
    ("arch", "args"),
    [
        ("vit_base_patch16_clip_224", {}),  # a norm before the blocks
        ("vit_small_patch16_224", {"qk_norm": True}),
        ("deit_tiny_distilled_patch16_224", {}),
        ("cait_xxs24_224", {}),
        ("vit_small_patch16_224", {"layer_norm_eps": {"": 1e-5}}),
    ],
)
def test_others_have_no_such_network(arch: str, args: dict[str, Any]) -> None:
    folded, _, spec = lift(arch, **args)
    assert timm_from_folded(folded, spec) is None


@torch.no_grad()
def test_a_process_without_this_program_loads_it_and_this_program_takes_the_student_itself(tmp_path: Path) -> None:
    folded, kept, spec = lift("deit_tiny_patch16_224")
    save_timm(tmp_path / "timm", spec, kept.state_dict(), SPEC, list("abcdefg"), timm_from_folded(folded, spec))
    save_file({"images": images(), "logits": kept(images())}, tmp_path / "given.safetensors")
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOADED_ELSEWHERE, str(tmp_path / "timm")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 3e-6
    teacher, student = (resolve_origin(f"local-dir:{tmp_path / 'timm'}", role) for role in ("teacher", "student"))
    assert (student.arch, {**TINY, **student.args}) == (spec.arch, student.args)
    made = build_model(ModelSpec(arch=teacher.arch, args=teacher.args, num_classes=7))
    assert load_checkpoint(made, teacher.weights()[0])
    assert torch.equal(made.eval()(images()), kept(images()))
