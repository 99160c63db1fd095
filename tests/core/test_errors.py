from __future__ import annotations

import pytest

from vitcompress.core import errors


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.UsageError, 2),
        (errors.DataError, 2),
        (errors.BundleError, 2),
        (errors.ResultError, 1),
        (errors.EnvironmentLacksError, 3),
        (errors.RunInterrupted, 130),
    ],
)
def test_exit_codes_are_the_promised_ones(kind: type[errors.CompressError], code: int) -> None:
    assert issubclass(kind, errors.CompressError)
    assert kind.exit_code == code
    assert kind.__name__ in (errors.__doc__ or "")


def test_nearest_is_best_first_and_empty_for_nothing_near() -> None:
    assert errors.nearest("distil", ["distill", "fold", "still"]).split(", ")[0] == "distill"
    assert errors.nearest("zzzz", ["distill", "fold"]) == ""
