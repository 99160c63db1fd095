from __future__ import annotations

import pytest
from sample_reports import CASES

from vitcompress.pipeline.report.document import Records


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Records:
    return CASES[request.param]


@pytest.fixture
def lift() -> Records:
    return CASES["lift"]
