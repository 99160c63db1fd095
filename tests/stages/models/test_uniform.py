"""The width of the control that has as many parameters as a widelast student."""

from __future__ import annotations

from typing import Any

import pytest
from small_run import STUDENT, STUDENT_ARGS

from vitcompress.core.errors import UsageError
from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.uniform import matching_width, parameters_of


@pytest.mark.parametrize(("args", "classes"), [({}, 1000), ({**STUDENT_ARGS, "embed_dim": 30}, 2)])
def test_the_matching_width_is_the_smallest_that_reaches_widelast(args: dict[str, Any], classes: int) -> None:
    def parameters(width: int, **changes: Any) -> int:
        spec = ModelSpec(arch=STUDENT, args={**args, "embed_dim": width}, num_classes=classes, **changes)
        return parameters_of(spec)

    own = args.get("embed_dim", 192)
    width = matching_width(STUDENT, args, classes, 2 * own)
    assert width % 12 == 0  # 3 heads, 4 channels each
    target = parameters(own, graph="widelast", lift_width=2 * own)
    assert parameters(width - 12) < target <= parameters(width)


@pytest.mark.parametrize(
    ("teacher", "words"),
    [(24, "the teacher's, 24, is not above that of"), (50, "the teacher's width 50 is no multiple of it")],
)
def test_without_a_widelast_student_a_width_must_be_given(teacher: int, words: str) -> None:
    with pytest.raises(UsageError, match=rf"uniform_width is auto, .*{words}.*; give student\.uniform_width\.$"):
        matching_width(STUDENT, STUDENT_ARGS, 10, teacher)
