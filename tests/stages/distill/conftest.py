from __future__ import annotations

from pathlib import Path

import pytest
from distill_run import given

from vitcompress.core.context import Context
from vitcompress.stages.distill.job import Inputs


@pytest.fixture
def inputs(digits_folder: Path, context: Context) -> Inputs:
    """Of a lift."""
    return given(context, digits_folder)
