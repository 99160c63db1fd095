from __future__ import annotations

from pathlib import Path

import pytest
from small_run import data_record

from vitcompress.core.context import Context
from vitcompress.core.records import DataRecord


@pytest.fixture
def data(digits_folder: Path, context: Context) -> DataRecord:
    """80 training images, 8 a class, and 30 held out."""
    return data_record(str(digits_folder), context)
