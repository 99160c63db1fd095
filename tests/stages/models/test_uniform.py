from __future__ import annotations

import pytest
from small_run import STUDENT, STUDENT_ARGS

from vitcompress.core.errors import UsageError
from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.uniform import matching_width, parameters_of


def plain(args, classes: int, **changes) -> ModelSpec:
    return ModelSpec(arch=STUDENT, args=args, num_classes=classes, **changes)


@pytest.mark.parametrize(("args", "classes"), [({}, 1000), (STUDENT_ARGS, 2), ({**STUDENT_ARGS, "embed_dim": 30}, 2)])
def test_the_matching_width_is_the_smallest_that_reaches_widelast(args, classes: int) -> None:
    own = args.get("embed_dim", 192)
    width = matching_width(STUDENT, args, classes, 2 * own)
    target = parameters_of(plain(args, classes, graph="widelast", lift_width=2 * own))
    assert width % 12 == 0  # 3 heads, 4 channels each
    assert width > own
    assert parameters_of(plain({**args, "embed_dim": width}, classes)) >= target
    if width - 12 > own:
        assert parameters_of(plain({**args, "embed_dim": width - 12}, classes)) < target


def test_deit_tiny_beside_its_widelast_student_of_cait_s24() -> None:
    assert matching_width(STUDENT, {}, 1000, 384) == 228


@pytest.mark.parametrize(
    ("teacher", "words"),
    [(24, "the teacher's, 24, is not above that of"), (50, "the teacher's width 50 is no multiple of it")],
)
def test_without_a_widelast_student_a_width_must_be_given(teacher: int, words: str) -> None:
    with pytest.raises(UsageError, match=rf"uniform_width is auto, .*{words}.*; give student\.uniform_width\.$"):
        matching_width(STUDENT, STUDENT_ARGS, 10, teacher)
