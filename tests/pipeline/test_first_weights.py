"""`student.init: auto`: what it becomes, the reason given, and that no network keeps a run waiting."""

from __future__ import annotations

from typing import Any

import pytest
from deciding import before_data, changed

from vitcompress.core.errors import UsageError
from vitcompress.pipeline.config import RunConfig, dump_yaml
from vitcompress.pipeline.config import student as module
from vitcompress.pipeline.config.facts import Earlier
from vitcompress.pipeline.config.student import unreachable
from vitcompress.stages.student.config import StudentConfig

TINY = "deit_tiny_patch16_224"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "unreachable", lambda _arch: "ConnectError")


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hub answers, and what is fetched from it is listed."""
    fetched: list[str] = []
    monkeypatch.setattr(module, "unreachable", lambda _arch: "")
    monkeypatch.setattr("vitcompress.stages.models.build.pretrained_model", lambda arch, _spec: fetched.append(arch))
    monkeypatch.setattr("vitcompress.stages.models.initial.fit_pretrained", lambda *_: None)
    return fetched


def test_digits_start_at_random_and_nobody_is_asked(digits: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "unreachable", lambda _arch: pytest.fail("the hub was asked"))
    student = before_data(digits).student
    assert (student.init, student.init_reason) == ("random", "networks as small as these are trained here")
    assert StudentConfig(model="x").init == "auto"


def test_pretrained_weights_go_first_where_they_can_be_had(folder: RunConfig, online: list[str]) -> None:
    student = before_data(folder).student
    assert student.init == "pretrained"
    assert online == [TINY]
    online.clear()
    assert before_data(folder, fetch=False).student.init == "pretrained"
    assert online == []


def test_offline_the_teacher_gives_them(folder: RunConfig, offline: None) -> None:
    config = before_data(folder)
    assert config.student.init == "teacher"
    assert config.student.init_reason == (
        f"no pretrained weights of {TINY} can be had from here (ConnectError); the teacher's blocks fit"
    )
    assert "init: auto" not in dump_yaml(config)
    assert before_data(config).student == config.student


def test_a_fetch_that_fails_after_all_is_told(
    folder: RunConfig, online: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_arch: str, _spec: Any) -> None:
        raise OSError("cut off")

    monkeypatch.setattr("vitcompress.stages.models.build.pretrained_model", fails)
    student = before_data(folder).student
    assert student.init == "teacher"
    assert "(OSError)" in student.init_reason


def test_a_teacher_of_another_family_leaves_random_weights(folder: RunConfig, offline: None) -> None:
    student = before_data(changed(folder, teacher={"model": "beit_base_patch16_224"})).student
    assert student.init == "random"
    assert "nor can the teacher's be taken: beit_base_patch16_224 has blocks of another kind" in student.init_reason


@pytest.mark.parametrize(
    "student", [{"args": {"depth": 6}}, {"strategy": "uniform", "uniform_width": 204}], ids=["shallower", "wider"]
)
def test_pretrained_weights_of_another_shape_are_not_asked_for(
    folder: RunConfig, monkeypatch: pytest.MonkeyPatch, student: dict[str, Any]
) -> None:
    monkeypatch.setattr(module, "unreachable", lambda _arch: pytest.fail("the hub was asked"))
    found = before_data(changed(folder, student=student)).student
    assert found.init == "teacher"
    assert f"timm's pretrained weights of {TINY} are for another width or depth" in found.init_reason


def test_a_tag_says_which(folder: RunConfig, online: list[str]) -> None:
    tagged = before_data(changed(folder, student={"model": f"{TINY}.fb_in1k"})).student
    assert (tagged.init, tagged.init_reason) == ("pretrained", f"the tag of {TINY}.fb_in1k names them")


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {"teacher": {"model": "swin_small"}, "student": {"init": "teacher", "strategy": "plain"}},
            "student.init is 'teacher', but swin_small_patch4_window7_224 has no sequence of equal blocks; use",
        ),
        (
            {"teacher": {"model": "beit_base_patch16_224"}, "student": {"init": "teacher"}},
            "beit_base_patch16_224 has blocks of another kind",
        ),
        ({"student": {"init": "teacher", "model": f"{TINY}.fb_in1k"}}, "so it starts from the teacher's"),
    ],
)
def test_what_cannot_be_is_refused(folder: RunConfig, sections: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        before_data(changed(folder, **sections))


def test_what_was_decided_stays_decided(folder: RunConfig, offline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = Earlier(folder, before_data(folder))
    monkeypatch.setattr(module, "unreachable", lambda _arch: "")
    assert before_data(changed(folder, export={"max_batch": 64}), earlier).student == earlier.resolved.student
    other = before_data(changed(folder, student={"strategy": "plain"}), earlier, fetch=False).student
    assert (other.init, earlier.resolved.student.init) == ("pretrained", "teacher")


def test_the_hub_is_asked_once_and_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fails(url: str, *, timeout: float) -> None:
        asked.append((url, timeout))
        raise ConnectionError

    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", fails)
    assert unreachable(TINY) == "not in the local cache, and asking the hub ended with ConnectionError"
    assert len(asked) == 1
    assert "timm/deit_tiny_patch16_224" in asked[0][0]
    assert asked[0][1] <= 5


def test_offline_mode_asks_nobody_and_the_cache_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: True)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **__: pytest.fail("the hub was asked"))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    assert unreachable(TINY) == "not in the local cache, and HF_HUB_OFFLINE is set"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: "/a/file")
    assert unreachable(TINY) == ""
