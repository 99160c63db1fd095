from __future__ import annotations

from vitcompress.core import errors


def test_exit_codes_are_the_promised_ones() -> None:
    kinds = ("UsageError", "DataError", "BundleError", "ResultError", "EnvironmentLacksError", "RunInterrupted")
    assert [getattr(errors, kind).exit_code for kind in kinds] == [2, 2, 2, 1, 3, 130]
    assert all(kind in (errors.__doc__ or "") for kind in kinds)


def test_nearest_is_best_first_and_empty_for_nothing_near() -> None:
    assert errors.nearest("distil", ["distill", "fold", "still"]).split(", ")[0] == "distill"
    assert errors.nearest("zzzz", ["distill", "fold"]) == ""
