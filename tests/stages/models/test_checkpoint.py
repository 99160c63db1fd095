"""Checkpoints from outside, as training scripts write them: found, told, and nothing in a file is ever run."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vitcompress.core.errors import UsageError
from vitcompress.stages.models.checkpoint import Checkpoint, read_checkpoint, without_wrapper

STATE = {"cls_token": torch.zeros(1), "blocks.0.weight": torch.ones(2), "head.bias": torch.full((3,), 2.0)}
OTHER = {name: value + 7 for name, value in STATE.items()}


def behind(prefix: str, state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


def read(folder: Path, content: object, key: str | None = None) -> Checkpoint:
    """What the pipeline makes of a torch file for a network of STATE's names."""
    torch.save(content, folder / "some.pt")
    return without_wrapper(read_checkpoint(folder / "some.pt", "teacher", key), STATE, folder / "some.pt", "teacher")


def holds(checkpoint: Checkpoint, state: dict[str, Tensor]) -> bool:
    return checkpoint.state.keys() == state.keys() and all(torch.equal(checkpoint.state[n], state[n]) for n in state)


SETTINGS = argparse.Namespace(lr=5e-4, model="deit")
FORMS = {  # content, key, prefix
    "the file itself": (STATE, "", ""),
    "the DeiT script": ({"model": STATE, "epoch": 7, "args": SETTINGS}, "model", ""),
    "timm, DDP": ({"state_dict": behind("module."), "metric": 71.2}, "state_dict", "module."),
    "timm, averaged": ({"state_dict": OTHER, "state_dict_ema": STATE}, "state_dict_ema", ""),
    "averaged beside nothing": ({"model": {}, "model_ema": STATE}, "model_ema", ""),
    "Lightning": (
        {"state_dict": behind("model."), "callbacks": {"best": np.float64(0.71)}, "more": [np.int32(3), np.zeros(2)]},
        "state_dict",
        "model.",
    ),
    "the PyTorch tutorial": (
        {"model_state_dict": STATE, "optimizer_state_dict": {"state": {0: {"exp_avg": torch.zeros(1)}}}},
        "model_state_dict",
        "",
    ),
    "an entry of its own name": ({"epoch": 1, "my_network": STATE}, "my_network", ""),
    "an entry of an entry": ({"epoch": 1, "ema": {"module": STATE, "decay": 0.99}}, "ema.module", ""),
    "torch.compile": (behind("_orig_mod."), "", "_orig_mod."),
    "DDP of a wrapper": (behind("module.backbone."), "", "module.backbone."),
    "a wrapper of wrappers": (behind("net.encoder.backbone."), "", "net.encoder.backbone."),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_every_usual_form_is_found_and_told(tmp_path: Path, form: str) -> None:
    content, key, prefix = FORMS[form]
    found = read(tmp_path, content)
    assert holds(found, STATE)
    assert (found.key, found.prefix, found.left_out) == (key, prefix, ())
    assert found.words.startswith(f"{len(STATE)} tensors of ")
    assert key in found.words
    assert prefix in found.words
    assert ("(EMA)" in found.words) == ("ema" in key)


def test_what_a_wrapper_holds_besides_is_left_out_by_name(tmp_path: Path) -> None:
    found = read(tmp_path, {**behind("model."), "criterion.weight": torch.zeros(2)})
    assert holds(found, STATE)
    assert found.left_out == ("criterion.weight",)
    assert "without 1 tensors: criterion.weight" in found.words
    content = {"model.cls_token": torch.zeros(1), "other": torch.zeros(1)}
    found = read(tmp_path, content)
    assert (found.prefix, found.state.keys()) == ("", content.keys())


def test_several_state_dicts_are_not_guessed_between(tmp_path: Path) -> None:
    content = {"student": OTHER, "teacher": STATE}
    with pytest.raises(UsageError, match=r"several state dicts: student, teacher; .*weights_key=student"):
        read(tmp_path, content)
    assert holds(read(tmp_path, content, "teacher"), STATE)
    assert holds(read(tmp_path, content, "student"), OTHER)
    averaged = {"state_dict": STATE, "state_dict_ema": OTHER}
    assert holds(read(tmp_path, averaged, "state_dict"), STATE)


def test_several_networks_under_prefixes_are_not_guessed_between(tmp_path: Path) -> None:
    headless = {name: value for name, value in OTHER.items() if not name.startswith("head.")}
    content = {"state_dict": {**behind("teacher.", headless), **behind("student.")}}
    with pytest.raises(UsageError, match=r"prefixes student\., teacher\.; .*weights_key=student"):
        read(tmp_path, content)
    found = read(tmp_path, content, "student")
    assert holds(found, STATE)
    assert found.prefix == "student."
    assert len(found.left_out) == len(headless)


def test_a_key_that_is_nowhere_is_told_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'gone' \(--set teacher\.weights_key=gone\); entries: 'model'; .*cls_token"):
        read(tmp_path, {"model": STATE}, "gone")


def test_a_pointer_of_git_lfs_and_a_whole_module_are_named(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 22883216\n")
    with pytest.raises(UsageError, match=r"Git LFS pointer.*git lfs pull"):
        read_checkpoint(path)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "teacher.pth")
    with pytest.raises(UsageError, match=r"torch\.nn\.modules\.linear\.Linear.*save the model's state_dict"):
        read_checkpoint(tmp_path / "teacher.pth")


class Malicious:
    """What a hostile pickle holds: something to call when it is loaded."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("writer", ["torch.save", "legacy", "pickle"])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path, writer: str) -> None:
    victim, path = tmp_path / "victim", tmp_path / "teacher.pth"
    content = {"model": STATE, "extra": Malicious(victim)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch.save")
    with pytest.raises(UsageError, match="cannot be read as safetensors or a plain state dict"):
        read_checkpoint(path)
    assert not victim.exists()
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it raises, the trap itself must work
        pickle.loads(pickle.dumps(Malicious(victim / "deeper")))  # noqa: S301


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"model": 3}, {}])
def test_what_holds_no_tensors_is_refused(tmp_path: Path, content) -> None:
    torch.save(content, tmp_path / "teacher.pth")
    with pytest.raises(UsageError, match=r"^teacher weights '.*' (cannot be read as|hold no state dict)"):
        read_checkpoint(tmp_path / "teacher.pth")


def test_files_that_are_no_weights_are_refused_with_whose_they_were_to_be(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:-2000])
    (tmp_path / "text.safetensors").write_text("text")
    told = {
        "gone.pth": r"do not exist; give a \.safetensors file or a torch state dict",
        "cut.pth": "cannot be read as",
        "text.safetensors": "cannot be read as",
    }
    for name, words in told.items():
        with pytest.raises(UsageError, match=f"^student weights '.*' {words}"):
            read_checkpoint(tmp_path / name, "student")
